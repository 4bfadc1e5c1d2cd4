-- 5 the claim. Answers its record, then messages.
local record = find() and holding(ARGV[5])
if not record then return {} end
return tell({ record }, held(record, ARGV[5]))
