-- 5 how many.
if not find() then return {} end
due()
local found = first(tonumber(ARGV[5]))
local answer = tell({}, found)
for _, message in ipairs(found) do drop(message[1]) end
return answer
