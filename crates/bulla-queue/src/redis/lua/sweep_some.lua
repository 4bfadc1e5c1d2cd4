-- Takes away what is over, as many as `most`; how many were looked at. A message that lives longer than
-- it was to when it was posted is looked at again.
local function sweep(most)
  local over = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now), 'LIMIT', 0, most)
  for _, member in ipairs(over) do
    local number, seq = string.match(member, '^(%d+):(%d+)$')
    enter(number)
    local state = redis.call('HGET', states, seq)
    if state and ends(state) > now then
      redis.call('ZADD', KEYS[2], text(ends(state)), member)
    else
      drop(seq)
    end
  end
  return #over
end
