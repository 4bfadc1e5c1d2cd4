-- Another number, so that claims that were made hold nothing.
if find() then
  redis.call('UNLINK', bodies, states, free, busy)
  redis.call('HSET', KEYS[3], 'n', text(places(1)))
end
return 1
