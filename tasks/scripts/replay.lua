-- A dead letter gets a new life. ARGV: 3 its ticket, 4 its history. Returns 'due', 'missing', or the state it is in.
local state = field('state')
if state ~= 'dead' then return state or 'missing' end
redis.call('PERSIST', key)
redis.call('HSET', key, 'ticket', ARGV[3], 'history', ARGV[4], 'attempts', 0, 'submitted_at', now)
redis.call('HDEL', key, 'error', 'last_error', 'ended_at', 'started_at', 'expires_at', 'taken_number', 'answered', 'follows')
redis.call('ZREM', prefix .. 'unanswered', id)
local named = field('idempotency')
if named and redis.call('GET', prefix .. 'idempotency:' .. named) == id then
  redis.call('PERSIST', prefix .. 'idempotency:' .. named)
end
wait_until(now)
return 'due'
