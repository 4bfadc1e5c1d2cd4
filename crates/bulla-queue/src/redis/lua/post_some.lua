-- ARGV: 5 who posts, 6 what to tell, 7 the set of who is told, 8 which of them knows; from `first` on
-- tag, ttl, delay and body of each message. The place of the first one.
local function post(first)
  if not find() then enter(make(ARGV[4], '{}')) end
  local count = (#ARGV + 1 - first) / 4
  local place = places(count)
  for i = 0, count - 1 do
    local at = first + 4 * i
    local seq, ttl, delay = text(place + i), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local over = now + 1000 * ttl
    local state = struct.pack('>c8c16I4I4dd', ARGV[at], ARGV[5], ttl, 0, now, over) .. NONE
    redis.call('HSET', states, seq, state)
    redis.call('HSET', bodies, seq, ARGV[at + 3])
    if delay > 0 then
      redis.call('ZADD', busy, text(now + 1000 * delay), seq)
    else
      redis.call('ZADD', free, seq, seq)
    end
    redis.call('ZADD', KEYS[2], text(over), n .. ':' .. seq)
  end
  for _, host in ipairs(redis.call('SMEMBERS', ARGV[7])) do
    -- Who is gone is told no more; who comes back says so.
    if host ~= ARGV[8] and redis.call('PUBLISH', host, ARGV[6]) == 0 then
      redis.call('SREM', ARGV[7], host)
    end
  end
  return place
end
