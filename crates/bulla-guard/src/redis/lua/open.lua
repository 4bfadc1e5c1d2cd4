-- What this server's life means. ARGV: 4 its run id, 5 '1' if a restart loses nothing,
-- 6 '1' if a new store means that nothing was ever received, 7 own places of a sender.
if is_new then
    if ARGV[6] ~= '1' then lose() end
else
    local before = redis.call('HMGET', ledger, 'run_id', 'keeps')
    if before[1] ~= ARGV[4] and not (before[2] == '1' and ARGV[5] == '1') then lose() end
end
redis.call('HSET', ledger, 'run_id', ARGV[4], 'keeps', ARGV[5])
-- Quotas may have been set anew since the last start.
local shared, own = 0, tonumber(ARGV[7])
for _, ids in ipairs(redis.call('HVALS', senders)) do
    shared = shared + math.max(0, tonumber(ids) - own)
end
redis.call('HSET', ledger, 'shared', whole(shared))
return redis.call('HGET', ledger, 'blind_until')
