-- 5 how many at the most, 6 when records end.
local records = redis.call('ZRANGEBYSCORE', ARGV[6], '-inf', text(now), 'LIMIT', 0, ARGV[5])
for _, key in ipairs(records) do
  local at = string.find(key, '\0', 1, true)
  redis.call('DEL', key)
  redis.call('ZREM', string.sub(key, 1, at - 1), string.sub(key, at + 1))
  redis.call('ZREM', ARGV[6], key)
end
return math.max(#records, sweep(tonumber(ARGV[5])))
