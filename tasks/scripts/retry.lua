-- ARGV: 3 token, 4 seconds to wait, 5 the error. Returns 'due', or 'stale' where somebody else runs the job now.
if field('token') ~= ARGV[3] then return 'stale' end
if field('state') == 'running' then
  redis.call('HSET', key, 'last_error', ARGV[5])
  wait_until(string.format('%.3f', now + ARGV[4]))
end
return field('state')
