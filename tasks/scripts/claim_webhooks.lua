-- Webhooks that are due, for one worker to deliver. ARGV: 3 how many at most, 4 seconds until they come back by themselves.
-- Returns the ids of their jobs.
local claimed = redis.call('ZRANGEBYSCORE', prefix .. 'webhooks', '-inf', now, 'LIMIT', 0, ARGV[3])
for _, job in ipairs(claimed) do redis.call('ZADD', prefix .. 'webhooks', now + ARGV[4], job) end
return claimed
