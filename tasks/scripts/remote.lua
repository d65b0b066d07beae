-- The job's try at a provider. ARGV: 3 token, 4 the try as JSON ('' = it is over), 5 USD that it has cost, 6 whether the job
-- is to be done at home from now on ('1'). Returns 'noted', or 'stale' where somebody else runs the job now.
if field('state') ~= 'running' or field('token') ~= ARGV[3] then return 'stale' end
if ARGV[4] == '' then redis.call('HDEL', key, 'remote') else redis.call('HSET', key, 'remote', ARGV[4]) end
if tonumber(ARGV[5]) > 0 then redis.call('HINCRBYFLOAT', key, 'cost_usd', ARGV[5]) end
if ARGV[6] == '1' then redis.call('HSET', key, 'stays_home', '1') end
return 'noted'
