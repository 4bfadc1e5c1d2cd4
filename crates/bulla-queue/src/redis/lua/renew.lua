-- 5 the claim, 6 ttl, 7 grace.
local record = find() and holding(ARGV[5])
if not record then return 0 end
local ttl = tonumber(ARGV[6])
local till = now + 1000 * ttl
local alive = till + 1000 * tonumber(ARGV[7])
for _, message in ipairs(held(record, ARGV[5])) do
  local seq, state = message[1], message[2]
  redis.call('HSET', states, seq, string.sub(state, 1, 40)
    .. struct.pack('>d', math.max(ends(state), alive)) .. ARGV[5])
  redis.call('ZADD', busy, text(till), seq)
end
keep(ARGV[5], ttl, till, string.sub(record, 29))
return 1
