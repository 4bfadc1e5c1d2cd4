-- Ids past their expiry and the skew, but for claims with a live lease. ARGV: 4 the name before a
-- claim's id, 5 how many to look at, 6 how many were left, 7 own places of a sender.
local bound = '(' .. whole(math.floor(now / 1000) - skew_s)
local ids = redis.call('ZRANGEBYSCORE', expiry, '-inf', bound, 'WITHSCORES', 'LIMIT', ARGV[6],
    ARGV[5])
local purged, left, mark, bytes, shared = 0, 0, 0, 0, 0
for at = 1, #ids, 2 do
    local id, exp = ids[at], tonumber(ids[at + 1])
    local name = ARGV[4] .. id
    local record = redis.call('HMGET', name, 'state', 'until_ms', 'sender')
    if record[1] == 'claimed' and now < tonumber(record[2]) then
        left = left + 1
    else
        bytes = bytes + redis.call('HSTRLEN', name, 'reply')
        redis.call('DEL', name)
        redis.call('ZREM', expiry, id)
        redis.call('ZREM', leases, id)
        local own = redis.call('HINCRBY', senders, record[3], -1)
        if own >= tonumber(ARGV[7]) then shared = shared + 1 end
        if own <= 0 then redis.call('HDEL', senders, record[3]) end
        purged, mark = purged + 1, math.max(mark, exp)
    end
end
if purged > 0 then
    mark = math.max(mark, tonumber(redis.call('HGET', ledger, 'purged_exp') or '0'))
    redis.call('HSET', ledger, 'purged_exp', whole(mark))
    redis.call('HINCRBY', ledger, 'reply_bytes', whole(0 - bytes))
    redis.call('HINCRBY', ledger, 'shared', whole(0 - shared))
end
return {#ids / 2, left, purged}
