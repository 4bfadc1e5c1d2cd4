-- From 5: seq and tag of each.
local answer = {}
if not find() then return answer end
due()
for at = 5, #ARGV, 2 do
  local state = redis.call('HGET', states, ARGV[at])
  if state and string.sub(state, 1, 8) == ARGV[at + 1] and ends(state) > now then
    tell(answer, { { ARGV[at], state } })
  end
end
return answer
