-- A record: 5 its key, 6 its owner's index, 7 when records end, 8 name, 9 value, 10 when it ends or nothing,
-- 11 what has to be there (`any`, `nothing`, `value`), 12 which value. Answers what was there: value, when
-- it ends.
local value, over = recorded(ARGV[5])
if ARGV[11] == 'any' or (ARGV[11] == 'nothing' and not value)
  or (ARGV[11] == 'value' and value == ARGV[12]) then
  record(ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10])
end
if not value then return {} end
return { value, over }
