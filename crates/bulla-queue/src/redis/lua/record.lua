-- A record that has not ended: its value, and when it ends or nothing.
local function recorded(key)
  local there = redis.call('HMGET', key, 'value', 'ends')
  if there[1] and there[2] ~= '' and tonumber(there[2]) <= now then there = {} end
  return there[1], there[2]
end

-- Keeps a record: its key, its owner's index, when records end; its name, its value, when it ends or nothing.
local function record(key, index, by_end, name, value, over)
  redis.call('HSET', key, 'value', value, 'ends', over)
  redis.call('ZADD', index, 0, name)
  if over == '' then
    redis.call('ZREM', by_end, key)
  else
    redis.call('ZADD', by_end, over, key)
  end
end
