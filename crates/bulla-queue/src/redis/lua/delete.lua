-- From 5: seq, tag, who may hold it (`any`, `nobody`, `claim`) and the claim of each.
-- Answers for each: 0 gone, 1 held, 2 not held, 3 no claim.
local answer = {}
local there = find()
for at = 5, #ARGV, 4 do
  local seq, tag, how, id = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local state = there and redis.call('HGET', states, seq)
  local said = 0
  if state and string.sub(state, 1, 8) == tag and ends(state) > now then
    local by = holder(state)
    local is_held = by ~= NONE and tonumber(redis.call('ZSCORE', busy, seq) or 0) > now
    if how == 'nobody' and is_held then
      said = 1
    elseif how == 'claim' and not (is_held and by == id) then
      said = (not holding(id)) and 3 or (is_held and 1 or 2)
    end
    if said == 0 then drop(seq) end
  end
  answer[#answer + 1] = said
end
return answer
