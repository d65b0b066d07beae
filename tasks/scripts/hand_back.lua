-- The worker cannot go on with the job, whose child is gone. ARGV: 3 worker, 4 whether the attempt counts ('1' or '0'),
-- 5 why, as an error ('' = it is not said), 6 number of the ticket that the child had ('' = it had none).
-- Returns 'due', or 'stale' where it is somebody else's, also another child's of this worker.
if field('state') ~= 'running' or field('worker') ~= ARGV[3] then return 'stale' end
if ARGV[6] ~= '' and field('taken_number') ~= ARGV[6] then return 'stale' end
if ARGV[4] == '0' and not field('remote') then redis.call('HINCRBY', key, 'attempts', -1) end
if ARGV[5] ~= '' then redis.call('HSET', key, 'last_error', ARGV[5]) end
make_due(now)
return 'due'
