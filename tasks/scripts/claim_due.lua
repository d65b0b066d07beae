-- ARGV: 3 how many at most, 4 seconds until an unfinished claim may be claimed again. Returns ids, each with a new ticket number.
-- A claimed job stays in the due-set until `issued`: should its issuer die in between, another one issues it again,
-- and the older ticket, if it was published after all, is stale by its number.
local claimed = {}
local due = redis.call('ZRANGEBYSCORE', prefix .. 'due', '-inf', now, 'LIMIT', 0, ARGV[3])
for _, job in ipairs(due) do
  local record = prefix .. 'job:' .. job
  if redis.call('HGET', record, 'state') == 'due' then
    redis.call('ZADD', prefix .. 'due', now + ARGV[4], job)
    redis.call('HINCRBY', record, 'ticket_number', 1)
    claimed[#claimed + 1] = job
  else
    redis.call('ZREM', prefix .. 'due', job)
  end
end
return claimed
