-- 5 after which place, 6 how many, 7 whose are left out, 8 and 9 whether those that are held, and held
-- back, too. Answers where to go on, if this was not all that had to be looked at; then messages.
if not find() then return { '' } end
due()
local after, limit, client = ARGV[5], tonumber(ARGV[6]), ARGV[7]
local function wanted(state)
  return state and ends(state) > now and string.sub(state, 9, 24) ~= client
end
local aside = {}
if ARGV[8] == '1' or ARGV[9] == '1' then
  for _, seq in ipairs(redis.call('ZRANGE', busy, 0, -1)) do
    local state = redis.call('HGET', states, seq)
    if tonumber(seq) > tonumber(after) and wanted(state) then
      local is_held = holder(state) ~= NONE
      if ARGV[is_held and 8 or 9] == '1' then aside[#aside + 1] = { seq, state } end
    end
  end
  table.sort(aside, function(a, b) return tonumber(a[1]) < tonumber(b[1]) end)
end
local found, next_aside, looked_at = {}, 1, 0
local function take_aside(before)
  while #found < limit and aside[next_aside] do
    if before and tonumber(aside[next_aside][1]) > tonumber(before) then return end
    found[#found + 1] = aside[next_aside]
    next_aside = next_aside + 1
  end
end
local go_on = ''
while #found < limit do
  local seqs = redis.call('ZRANGEBYSCORE', free, '(' .. after, '+inf', 'LIMIT', 0, limit)
  if #seqs == 0 then
    take_aside()
    break
  end
  if looked_at > 1000 then
    go_on = after
    break
  end
  looked_at = looked_at + #seqs
  local known = redis.call('HMGET', states, unpack(seqs))
  for i, seq in ipairs(seqs) do
    take_aside(seq)
    if #found < limit and wanted(known[i]) then found[#found + 1] = { seq, known[i] } end
    after = seq
  end
end
return tell({ go_on }, found)
