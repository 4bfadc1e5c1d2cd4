-- Records of one owner: 5 the index, 6 when records end, 7 which or nothing for all.
local names = { ARGV[7] }
if ARGV[7] == '' then names = redis.call('ZRANGE', ARGV[5], 0, -1) end
for _, name in ipairs(names) do
  local key = ARGV[5] .. '\0' .. name
  redis.call('DEL', key)
  redis.call('ZREM', ARGV[5], name)
  redis.call('ZREM', ARGV[6], key)
end
return 1
