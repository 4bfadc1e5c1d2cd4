-- Insert or compare. ARGV: 4 digest, 5 worker, 6 lease in ms, 7 idempotent, 8 iat, 9 exp,
-- 10 sender, 11 key, 12 '1' and 13 the envelope if it is kept, 14 senders, 15 own places,
-- 16 shared places.
local function grant(attempt, idempotent)
    local until_ms = whole(now + tonumber(ARGV[6]))
    redis.call('HSET', claim, 'state', 'claimed', 'worker', ARGV[5], 'attempt', whole(attempt),
        'until_ms', until_ms, 'idempotent', idempotent)
    redis.call('ZADD', leases, until_ms, ARGV[17])
    return {'granted', now, attempt, tonumber(until_ms)}
end
local record = redis.call('HMGET', claim, 'digest', 'state', 'until_ms', 'attempt', 'idempotent',
    'reply_digest', 'reply')
if record[1] then
    if record[1] ~= ARGV[4] then return {'refused', now, 'id-conflict'} end
    if record[2] ~= 'claimed' then return {record[2], now, record[6], record[7]} end
    if now < tonumber(record[3]) then return {'held', now, tonumber(record[3])} end
    local attempt = tonumber(record[4]) + 1
    if record[5] == '1' and ARGV[7] == '1' and attempt <= 4294967295 then
        return grant(attempt, '1')
    end
    redis.call('HSET', claim, 'state', 'in-doubt')
    redis.call('HDEL', claim, 'worker', 'attempt', 'until_ms', 'idempotent', 'key', 'envelope')
    redis.call('ZREM', leases, ARGV[17])
    return {'in-doubt', now, false, false, 'fell'}
end
local gate = redis.call('HMGET', ledger, 'purged_exp', 'blind_until', 'shared')
if tonumber(ARGV[9]) <= tonumber(gate[1] or '0') then return {'refused', now, 'purged'} end
if gate[2] and tonumber(ARGV[8]) <= tonumber(gate[2]) then
    return {'refused', now, 'before-start'}
end
local own = tonumber(redis.call('HGET', senders, ARGV[10]) or '0')
if own == 0 and redis.call('HLEN', senders) >= tonumber(ARGV[14]) then
    return {'refused', now, 'store-full'}
end
if own >= tonumber(ARGV[15]) then
    if tonumber(gate[3] or '0') >= tonumber(ARGV[16]) then
        return {'refused', now, 'sender-quota'}
    end
    redis.call('HINCRBY', ledger, 'shared', 1)
end
redis.call('HINCRBY', senders, ARGV[10], 1)
redis.call('HSET', claim, 'digest', ARGV[4], 'sender', ARGV[10], 'key', ARGV[11])
if ARGV[12] == '1' then redis.call('HSET', claim, 'envelope', ARGV[13]) end
redis.call('ZADD', expiry, ARGV[9], ARGV[17])
return grant(1, ARGV[7])
