-- ARGV: 3 token, 4 stage, 5 percent, 6 the recording's seconds ('' = not known yet), 7 the seconds of its
-- stages that are over, as JSON ('' = as before).
-- Returns 'go on', 'cancel', or 'lost' where somebody else runs the job now.
if field('state') ~= 'running' or field('token') ~= ARGV[3] then return 'lost' end
redis.call('HSET', key, 'stage', ARGV[4], 'percent', ARGV[5])
if ARGV[7] ~= '' then redis.call('HSET', key, 'stage_seconds', ARGV[7]) end
if ARGV[6] ~= '' then redis.call('HSET', key, 'audio_seconds', ARGV[6]) end
return field('cancel_requested') and 'cancel' or 'go on'
