-- A record: 5 its key, 6 its owner's index, 7 name, 8 value, 9 when it ends or nothing, 10 what has to be
-- there (`any`, `nothing`, `value`), 11 which value, 12 when records end. Answers what was there: value,
-- when it ends.
local there = redis.call('HMGET', ARGV[5], 'value', 'ends')
if there[1] and there[2] ~= '' and tonumber(there[2]) <= now then there = {} end
local may = ARGV[10] == 'any' or (ARGV[10] == 'nothing' and not there[1])
  or (ARGV[10] == 'value' and there[1] == ARGV[11])
if may then
  redis.call('HSET', ARGV[5], 'value', ARGV[8], 'ends', ARGV[9])
  redis.call('ZADD', ARGV[6], 0, ARGV[7])
  if ARGV[9] == '' then
    redis.call('ZREM', ARGV[12], ARGV[5])
  else
    redis.call('ZADD', ARGV[12], ARGV[9], ARGV[5])
  end
end
if not there[1] then return {} end
return { there[1], there[2] }
