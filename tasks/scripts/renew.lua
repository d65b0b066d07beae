-- The main process of a worker lives. ARGV: 3 worker, 4 lease seconds, 5.. the jobs it holds. Returns how many it runs.
local renewed = 0
for i = 5, #ARGV do
  id, key = ARGV[i], prefix .. 'job:' .. ARGV[i]
  if field('state') == 'running' and field('worker') == ARGV[3] then
    redis.call('ZADD', prefix .. 'leases', 'XX', now + ARGV[4], id)
    renewed = renewed + 1
  end
end
return renewed
