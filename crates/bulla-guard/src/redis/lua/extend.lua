-- ARGV: 4 worker, 5 attempt, 6 the new end in Unix ms, 7 id.
local record = redis.call('HMGET', claim, 'state', 'worker', 'attempt', 'until_ms')
if not record[1] then return {'unknown', 0} end
if record[1] ~= 'claimed' then return {record[1], 0} end
if record[2] ~= ARGV[4] or record[3] ~= ARGV[5] then return {'taken-over', 0} end
local until_ms = math.max(tonumber(record[4]), tonumber(ARGV[6]))
redis.call('HSET', claim, 'until_ms', whole(until_ms))
redis.call('ZADD', leases, whole(until_ms), ARGV[7])
return {'extended', until_ms}
