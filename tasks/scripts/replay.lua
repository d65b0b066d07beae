-- A dead letter gets a new life. ARGV: 3 its ticket, 4 its history.
-- Returns 'due', 'missing', 'untold' while Celery has yet to be told of its end, or the state it is in.
local state = field('state')
if state ~= 'dead' then return state or 'missing' end
if redis.call('ZSCORE', prefix .. 'jobs:unanswered', id) then return 'untold' end
redis.call('PERSIST', key)
redis.call('HSET', key, 'ticket', ARGV[3], 'history', ARGV[4], 'attempts', 0, 'submitted_at', now)
redis.call('HDEL', key, 'error', 'last_error', 'ended_at', 'started_at', 'expires_at', 'taken_number', 'answered', 'follows')
local deadline_seconds = field('deadline_seconds')
if deadline_seconds then redis.call('HSET', key, 'deadline_at', string.format('%.3f', now + deadline_seconds)) end
-- Of several that had one idempotency key, one runs, and the others follow it.
local named = field('idempotency')
local first = owner_of(named)
local first_state = first and redis.call('HGET', prefix .. 'job:' .. first, 'state')
if first_state == 'done' or first_state and not ended(first_state) then
  follow(first)
else
  if named then redis.call('SET', prefix .. 'idempotency:' .. named, id) end
  make_due(now)
end
return 'due'
