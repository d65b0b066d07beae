-- How the delivery of a webhook went. ARGV: 3 when the job had ended that it told of, 4 'told', 'handed back', 'later',
-- 'given up' or 'again', 5 what was wrong, 6 seconds until the next try.
-- Returns 'noted', or 'stale' where the job has been replayed meanwhile, or 'missing'.
if not field('webhook') then return 'missing' end
if field('ended_at') ~= ARGV[3] then return 'stale' end
local waiting, dead = prefix .. 'webhooks', prefix .. 'webhooks:dead'
if ARGV[4] == 'told' then
  redis.call('ZREM', waiting, id)
  redis.call('HSET', key, 'webhook_told_at', now)
  redis.call('HDEL', key, 'webhook_error')
  if field('state') ~= 'dead' then redis.call('HDEL', key, 'webhook') end  -- a dead letter may be replayed
elseif ARGV[4] == 'handed back' then
  redis.call('ZADD', waiting, now, id)
elseif ARGV[4] == 'again' then
  redis.call('ZREM', dead, id)
  redis.call('ZADD', waiting, now, id)
  redis.call('HDEL', key, 'webhook_tries')
  redis.call('HSET', key, 'webhook_again_at', now)
else
  redis.call('HINCRBY', key, 'webhook_tries', 1)
  redis.call('HSET', key, 'webhook_error', ARGV[5])
  if ARGV[4] == 'later' then
    redis.call('ZADD', waiting, now + ARGV[6], id)
  else
    redis.call('ZREM', waiting, id)
    redis.call('ZADD', dead, now, id)
  end
end
return 'noted'
