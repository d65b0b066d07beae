-- Jobs whose lease has run out are due at once. ARGV: 3 how many at most, 4 lease seconds. Returns their ids.
-- Every worker calls this each second. Where nobody has for a while, Redis was away, and so could nobody renew: leases that
-- ran out meanwhile get half of one more, in which workers that live renew them.
local seen_at = redis.call('GET', prefix .. 'fleet:lapsed_at')
redis.call('SET', prefix .. 'fleet:lapsed_at', now)
if seen_at and now - seen_at > math.max(3, ARGV[4] / 3) then
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'leases', seen_at, now)) do
    redis.call('ZADD', prefix .. 'leases', now + ARGV[4] / 2, job)
  end
end
local lapsed = redis.call('ZRANGEBYSCORE', prefix .. 'leases', '-inf', now, 'LIMIT', 0, ARGV[3])
local due = {}
for _, job in ipairs(lapsed) do
  id, key = job, prefix .. 'job:' .. job
  if field('state') == 'running' then
    make_due(now)
    count('lapsed')
    due[#due + 1] = id
  else
    redis.call('ZREM', prefix .. 'leases', id)
  end
end
return due
