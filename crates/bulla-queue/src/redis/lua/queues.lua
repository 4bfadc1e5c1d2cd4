-- 5 where to begin, 6 how many.
local answer = {}
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[4], ARGV[5], '+', 'LIMIT', 0, ARGV[6])) do
  answer[#answer + 1] = name
  answer[#answer + 1] = redis.call('HGET', ARGV[3] .. name, 'metadata')
end
return answer
