-- The main process of a worker lives. ARGV: 3 worker, 4 lease seconds, 5 what it is, as JSON, 6 whether it is idle, 7.. the
-- jobs it holds. Returns how many it runs.
local renewed = 0
for i = 7, #ARGV do
  id, key = ARGV[i], prefix .. 'job:' .. ARGV[i]
  if field('state') == 'running' and field('worker') == ARGV[3] then
    redis.call('ZADD', prefix .. 'leases', 'XX', now + ARGV[4], id)
    renewed = renewed + 1
  end
end
redis.call('HSET', prefix .. 'fleet:workers', ARGV[3], ARGV[5])
redis.call('ZADD', prefix .. 'fleet:workers_seen', now, ARGV[3])
if ARGV[6] == '1' then
  redis.call('ZADD', prefix .. 'fleet:idle', now, ARGV[3])
else
  redis.call('ZREM', prefix .. 'fleet:idle', ARGV[3])
end
return renewed
