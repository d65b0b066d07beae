-- Jobs whose lease has run out are due at once. ARGV: 3 how many at most. Returns their ids.
local lapsed = redis.call('ZRANGEBYSCORE', prefix .. 'leases', '-inf', now, 'LIMIT', 0, ARGV[3])
for _, job in ipairs(lapsed) do
  id, key = job, prefix .. 'job:' .. job
  if field('state') == 'running' then
    wait_until(now)
  else
    redis.call('ZREM', prefix .. 'leases', id)
  end
end
return lapsed
