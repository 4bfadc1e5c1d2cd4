-- Answers how many are free, and busy; then the first message and the last.
while sweep(1000) == 1000 do end
if not find() then return { 0, 0 } end
due()
local held_up = redis.call('ZRANGE', busy, 0, -1)
local least = redis.call('ZRANGE', free, 0, 0)[1]
local most = redis.call('ZRANGE', free, -1, -1)[1]
for _, seq in ipairs(held_up) do
  if not least or tonumber(seq) < tonumber(least) then least = seq end
  if not most or tonumber(seq) > tonumber(most) then most = seq end
end
local answer = { redis.call('ZCARD', free), #held_up }
for _, seq in ipairs({ least, most }) do
  tell(answer, { { seq, redis.call('HGET', states, seq) } })
end
return answer
