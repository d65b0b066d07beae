-- ARGV: 3 token, 4 stage, 5 percent. Returns 'go on', 'cancel', or 'lost' where somebody else runs the job now.
if field('state') ~= 'running' or field('token') ~= ARGV[3] then return 'lost' end
redis.call('HSET', key, 'stage', ARGV[4], 'percent', ARGV[5])
return field('cancel_requested') and 'cancel' or 'go on'
