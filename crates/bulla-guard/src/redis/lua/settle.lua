-- Leases that are over. ARGV: 4 worker, 5 lease in ms, 6 the name before a claim's id, 7 how many
-- to look at, 8 how many were left as they are.
local ids = redis.call('ZRANGEBYSCORE', leases, '-inf', whole(now), 'LIMIT', ARGV[8], ARGV[7])
local settled, left = {}, 0
for _, id in ipairs(ids) do
    local name = ARGV[6] .. id
    local record = redis.call('HMGET', name, 'key', 'envelope', 'attempt', 'idempotent')
    local attempt = tonumber(record[3] or '4294967295') + 1
    if record[4] == '1' and attempt <= 4294967295 then
        if record[2] then
            local until_ms = whole(now + tonumber(ARGV[5]))
            redis.call('HSET', name, 'worker', ARGV[4], 'attempt', whole(attempt),
                'until_ms', until_ms)
            redis.call('ZADD', leases, until_ms, id)
            settled[#settled + 1] = {record[1], record[2], attempt, tonumber(until_ms)}
        else
            -- Without the envelope only a redelivery can run it again.
            left = left + 1
        end
    else
        redis.call('HSET', name, 'state', 'in-doubt')
        redis.call('HDEL', name, 'worker', 'attempt', 'until_ms', 'idempotent', 'key', 'envelope')
        redis.call('ZREM', leases, id)
        settled[#settled + 1] = {record[1], record[2], 0, 0}
    end
end
return {now, #ids, left, settled}
