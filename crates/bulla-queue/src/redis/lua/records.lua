-- Records of one owner: 5 the index, 6 where to begin, 7 how many. Answers name, value and end of each.
local answer = {}
local from, most = ARGV[6], tonumber(ARGV[7])
while #answer < 3 * most do
  local names = redis.call('ZRANGEBYLEX', ARGV[5], from, '+', 'LIMIT', 0, most)
  for _, name in ipairs(names) do
    from = '(' .. name
    local it = redis.call('HMGET', ARGV[5] .. '\0' .. name, 'value', 'ends')
    if it[1] and #answer < 3 * most and (it[2] == '' or tonumber(it[2]) > now) then
      answer[#answer + 1] = name
      answer[#answer + 1] = it[1]
      answer[#answer + 1] = it[2]
    end
  end
  if #names < most then break end
end
return answer
