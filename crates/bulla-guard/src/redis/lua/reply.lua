-- Stores a reply within the byte budget; says whether its bytes were dropped.
local function store(digest, has_bytes, bytes, budget)
    redis.call('HSET', claim, 'reply_digest', digest)
    if has_bytes ~= '1' then return 0 end
    local used = tonumber(redis.call('HGET', ledger, 'reply_bytes') or '0')
    if #bytes > 0 and used + #bytes > tonumber(budget) then return 1 end
    redis.call('HSET', claim, 'reply', bytes)
    redis.call('HINCRBY', ledger, 'reply_bytes', #bytes)
    return 0
end
