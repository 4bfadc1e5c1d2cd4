-- 5 metadata, then how often messages are claimed at the most, where they go then, how long they live there.
if find() then return 0 end
make(ARGV[4], ARGV[5])
redis.call('HSET', KEYS[3], 'max', ARGV[6], 'dead', ARGV[7], 'dead-ttl', ARGV[8])
return 1
