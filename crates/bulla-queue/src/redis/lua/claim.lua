-- 5 how many, 6 ttl, 7 grace, 8 tag of the claim. Answers seq of the claim, since when; then messages.
if not find() then return {} end
due()
local limit, ttl = tonumber(ARGV[5]), tonumber(ARGV[6])
local rule = redis.call('HMGET', KEYS[3], 'max', 'dead', 'dead-ttl')
local max = tonumber(rule[1] or '') or 0

-- Where a message goes that was claimed too often.
local function bury(seq, state)
  local body = redis.call('HGET', bodies, seq)
  drop(seq)
  -- A queue can't be its own.
  if rule[2] == ARGV[4] then return end
  local mine = n
  enter(redis.call('HGET', ARGV[3] .. rule[2], 'n') or make(rule[2], '{}'))
  local tag, client, lived, _, created, over = struct.unpack('>c8c16I4I4dd', state)
  local lives = tonumber(rule[3] or '')
  if lives then
    lived, over = lives, now + 1000 * lives
  end
  local moved = struct.pack('>c8c16I4I4dd', tag, client, lived, 0, created, over) .. NONE
  redis.call('HSET', states, seq, moved)
  redis.call('HSET', bodies, seq, body)
  redis.call('ZADD', free, seq, seq)
  redis.call('ZADD', KEYS[2], text(over), n .. ':' .. seq)
  enter(mine)
end

local found
repeat
  found = first(limit)
  local buried = false
  if max > 0 then
    for _, message in ipairs(found) do
      if struct.unpack('>I4', string.sub(message[2], 29, 32)) >= max then
        bury(message[1], message[2])
        buried = true
      end
    end
  end
until not buried
if #found == 0 then return {} end
local place = places(1)
local id = struct.pack('>I8', place) .. ARGV[8]
local till = now + 1000 * ttl
local alive = till + 1000 * tonumber(ARGV[7])
local seqs = {}
for i, message in ipairs(found) do
  local seq, state = message[1], message[2]
  local claims = struct.unpack('>I4', string.sub(state, 29, 32)) + 1
  message[2] = string.sub(state, 1, 28) .. struct.pack('>I4', claims) .. string.sub(state, 33, 40)
    .. struct.pack('>d', math.max(ends(state), alive)) .. id
  redis.call('HSET', states, seq, message[2])
  redis.call('ZREM', free, seq)
  redis.call('ZADD', busy, text(till), seq)
  seqs[i] = struct.pack('>d', tonumber(seq))
end
keep(id, ttl, till, table.concat(seqs))
return tell({ place, now }, found)
