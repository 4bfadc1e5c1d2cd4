-- 5 the claim.
local record = find() and holding(ARGV[5])
if not record then return 0 end
for _, message in ipairs(held(record, ARGV[5])) do
  redis.call('HSET', states, message[1], string.sub(message[2], 1, 48) .. NONE)
  redis.call('ZREM', busy, message[1])
  redis.call('ZADD', free, message[1], message[1])
end
redis.call('DEL', claim_key(ARGV[5]))
return 1
