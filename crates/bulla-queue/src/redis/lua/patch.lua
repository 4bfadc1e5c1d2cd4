-- 5 metadata as they were read; then as in create.
if redis.call('HGET', KEYS[3], 'metadata') ~= ARGV[5] then return 0 end
redis.call('HSET', KEYS[3], 'metadata', ARGV[6], 'max', ARGV[7], 'dead', ARGV[8], 'dead-ttl', ARGV[9])
return 1
