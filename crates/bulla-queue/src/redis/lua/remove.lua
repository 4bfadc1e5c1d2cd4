if find() then
  redis.call('UNLINK', bodies, states, free, busy)
  redis.call('DEL', KEYS[3])
  redis.call('ZREM', KEYS[4], ARGV[4])
  redis.call('ZREM', KEYS[5], among_all(ARGV[4]))
end
return 1
