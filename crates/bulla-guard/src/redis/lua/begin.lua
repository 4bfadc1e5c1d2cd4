-- Goes before every other script: the clock, and whether the store still knows what it knew.
-- KEYS: ledger, senders, leases, expiry, then the claim if there is one.
-- ARGV: 1 the clock in Unix ms ('': this server's), 2 skew in s, 3 a new epoch, then the script's.
local ledger, senders, leases, expiry, claim = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local skew_s = tonumber(ARGV[2])
-- Numbers as text: tostring() would round them.
local function whole(number) return string.format('%.0f', number) end
local now
if ARGV[1] == '' then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
else
    now = tonumber(ARGV[1])
end
local function lose()
    local till = math.ceil(now / 1000) + skew_s
    local before = tonumber(redis.call('HGET', ledger, 'blind_until') or '-1')
    redis.call('HSET', ledger, 'blind_until', whole(math.max(till, before)))
end
local is_new = not redis.call('HGET', ledger, 'epoch')
if is_new then redis.call('HSET', ledger, 'epoch', ARGV[3]) end
