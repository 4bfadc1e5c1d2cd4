-- KEYS: 1 the last place in the order, 2 when messages end, 3 the queue, 4 names of the project's queues,
--       5 all queues.
-- ARGV: 1 the time in ms, or nothing for this server's, 2 what is put before what queues hold,
--       3 what is put before names of the project's queues, 4 the queue's name.
-- A message's state, 64 bytes: tag 8, client 16, ttl 4, claims 4, created 8, ends 8, claim 16.
local NONE = string.rep('\0', 16)
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

-- Sets places in the order aside; the first of them.
local function places(count)
  local first = math.max(tonumber(redis.call('GET', KEYS[1]) or '0') + 1, now * 1000)
  redis.call('SET', KEYS[1], text(first + count - 1))
  return first
end

local n, bodies, states, free, busy

local function enter(number)
  n = number
  local at = ARGV[2] .. number
  bodies, states, free, busy = at .. ':body', at .. ':state', at .. ':free', at .. ':busy'
end

-- Whether the queue is there.
local function find()
  local number = redis.call('HGET', KEYS[3], 'n')
  if number then enter(number) end
  return number
end

-- A queue among all of them.
local function among_all(name)
  return string.match(KEYS[4], '^{[^}]*}:names:(.*)$') .. '\0' .. name
end

local function make(name, metadata)
  local number = text(places(1))
  redis.call('HSET', ARGV[3] .. name, 'n', number, 'metadata', metadata)
  redis.call('ZADD', KEYS[4], 0, name)
  redis.call('ZADD', KEYS[5], 0, among_all(name))
  return number
end

local function ends(state)
  return (struct.unpack('>d', string.sub(state, 41, 48)))
end

local function holder(state)
  return string.sub(state, 49, 64)
end

local function drop(seq)
  redis.call('HDEL', bodies, seq)
  redis.call('HDEL', states, seq)
  redis.call('ZREM', free, seq)
  redis.call('ZREM', busy, seq)
  redis.call('ZREM', KEYS[2], n .. ':' .. seq)
end

-- What was held or held back long enough is anybody's.
local function due()
  while true do
    local late = redis.call('ZRANGEBYSCORE', busy, '-inf', text(now), 'LIMIT', 0, 1000)
    for _, seq in ipairs(late) do
      local state = redis.call('HGET', states, seq)
      if state then
        if holder(state) ~= NONE then
          redis.call('HSET', states, seq, string.sub(state, 1, 48) .. NONE)
        end
        redis.call('ZADD', free, seq, seq)
      end
      redis.call('ZREM', busy, seq)
    end
    if #late < 1000 then return end
  end
end

-- The first messages that anybody may have: {seq, state} of each.
local function first(limit)
  local found = {}
  while #found < limit do
    local seqs = redis.call('ZRANGE', free, #found, limit - 1)
    if #seqs == 0 then break end
    local known = redis.call('HMGET', states, unpack(seqs))
    for i, seq in ipairs(seqs) do
      if known[i] and ends(known[i]) > now then
        found[#found + 1] = { seq, known[i] }
      else
        drop(seq)
      end
    end
  end
  return found
end

local function claim_key(id)
  return ARGV[2] .. n .. ':claim:' .. text((struct.unpack('>I8', id)))
end

-- A claim's record, if it holds: tag 8, ttl 4, since 8, until 8, and 8 for each message.
local function holding(id)
  local record = redis.call('GET', claim_key(id))
  if not record or string.sub(record, 1, 8) ~= string.sub(id, 9, 16) then return nil end
  if struct.unpack('>d', string.sub(record, 21, 28)) <= now then return nil end
  return record
end

-- Messages of a record that its claim still holds: {seq, state} of each.
local function held(record, id)
  local found = {}
  for at = 29, #record, 8 do
    local seq = text((struct.unpack('>d', string.sub(record, at, at + 7))))
    local state = redis.call('HGET', states, seq)
    if state and holder(state) == id and ends(state) > now then
      found[#found + 1] = { seq, state }
    end
  end
  return found
end

-- Adds seq, state and body of messages to an answer.
local function tell(answer, messages)
  for _, message in ipairs(messages) do
    answer[#answer + 1] = message[1]
    answer[#answer + 1] = message[2]
    answer[#answer + 1] = redis.call('HGET', bodies, message[1])
  end
  return answer
end

-- A claim is forgotten by itself, a minute after it ended.
local function keep(id, ttl, till, seqs)
  local record = struct.pack('>c8I4dd', string.sub(id, 9, 16), ttl, now, till) .. seqs
  redis.call('SET', claim_key(id), record, 'PXAT', text(till + 60000))
end
