-- When the next message will be anybody's.
if not find() then return {} end
local next = redis.call('ZRANGEBYSCORE', busy, '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return { next[2] and text(tonumber(next[2])) }
