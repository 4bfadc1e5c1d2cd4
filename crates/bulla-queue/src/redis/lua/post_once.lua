-- 9 the key of the record of it, 10 its owner's index, 11 when records end, 12 its name, 13 its digest,
-- 14 when it ends; then the messages. Answers the place of the first one, or nothing and what was there.
local function id_text(seq, tag)
  local low = string.gsub(tag, '.', function(byte) return string.format('%02x', string.byte(byte)) end)
  local variant = string.format('%02x', string.byte(tag) + 128)
  local millis = math.floor(seq / 1000)
  return string.format('%08x-%04x-%04x-%s-%s', math.floor(millis / 65536), millis % 65536,
    28672 + seq % 1000, variant .. string.sub(low, 3, 4), string.sub(low, 5))
end

local value = recorded(ARGV[9])
if value then return { false, value } end
local place, ids = post(15), {}
for at = 15, #ARGV, 4 do
  ids[#ids + 1] = id_text(place + #ids, ARGV[at])
end
record(ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13] .. ' ' .. table.concat(ids, ','), ARGV[14])
return { place }
