-- Webhooks that are due, for one worker to deliver. ARGV: 3 how many at most, 4 seconds until they come back by themselves.
-- Returns the ids of their jobs. A job that is gone, or has been replayed, has no end to tell of: its next one is told.
local claimed, waiting = {}, prefix .. 'webhooks'
for _, job in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, ARGV[3])) do
  key = prefix .. 'job:' .. job
  if field('webhook') and ended(field('state')) then
    redis.call('ZADD', waiting, now + ARGV[4], job)
    claimed[#claimed + 1] = job
  else
    redis.call('ZREM', waiting, job)
  end
end
return claimed
