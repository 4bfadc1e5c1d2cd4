-- Compare (worker, attempt) and set. ARGV: 4 worker, 5 attempt, 6 state, 7 the reply's digest or
-- '', 8 '1' and 9 its bytes if there are any, 10 byte budget, 11 id.
local record = redis.call('HMGET', claim, 'state', 'worker', 'attempt')
if not record[1] then return {'unknown', 0} end
if record[1] ~= 'claimed' then return {record[1], 0} end
if record[2] ~= ARGV[4] or record[3] ~= ARGV[5] then return {'taken-over', 0} end
redis.call('HSET', claim, 'state', ARGV[6])
redis.call('HDEL', claim, 'worker', 'attempt', 'until_ms', 'idempotent', 'key', 'envelope')
redis.call('ZREM', leases, ARGV[11])
if ARGV[7] == '' then return {'stored', 0} end
return {'stored', store(ARGV[7], ARGV[8], ARGV[9], ARGV[10])}
