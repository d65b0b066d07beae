-- The worker cannot go on with the job, whose child is gone. ARGV: 3 worker, 4 whether the attempt counts ('1' or '0'),
-- 5 why, as an error ('' = it is not said). Returns 'due', or 'stale' where it is somebody else's.
if field('state') ~= 'running' or field('worker') ~= ARGV[3] then return 'stale' end
if ARGV[4] == '0' then redis.call('HINCRBY', key, 'attempts', -1) end
if ARGV[5] ~= '' then redis.call('HSET', key, 'last_error', ARGV[5]) end
wait_until(now)
return 'due'
