-- An ended job is forgotten. ARGV: 3 the state it must have ended in ('' = any).
-- Returns 'deleted', 'missing', 'untold' while Celery has yet to be told of its end, or the state it is in.
local state = field('state')
if not state then return 'missing' end
if not ended(state) or (ARGV[3] ~= '' and state ~= ARGV[3]) then return state end
if redis.call('ZSCORE', prefix .. 'jobs:unanswered', id) then return 'untold' end
local named = field('idempotency')
if named and redis.call('GET', prefix .. 'idempotency:' .. named) == id then
  redis.call('DEL', prefix .. 'idempotency:' .. named)
end
redis.call('ZREM', prefix .. 'state:' .. state, id)
redis.call('ZREM', prefix .. 'webhooks', id)
redis.call('ZREM', prefix .. 'webhooks:dead', id)
redis.call('DEL', key, prefix .. 'followers:' .. id)
return 'deleted'
