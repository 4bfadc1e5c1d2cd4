-- The first error for a claim in doubt stays. ARGV: 4 its digest, 5 '1' and 6 its bytes,
-- 7 byte budget.
local record = redis.call('HMGET', claim, 'state', 'reply_digest', 'reply')
if record[1] ~= 'in-doubt' then return {'none', 0} end
if record[2] then return {'standing', 0, record[2], record[3]} end
return {'yours', store(ARGV[4], ARGV[5], ARGV[6], ARGV[7])}
