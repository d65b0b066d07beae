-- A dead letter is forgotten. Returns 'discarded', 'missing', or the state it is in.
local state = field('state')
if state ~= 'dead' then return state or 'missing' end
local named = field('idempotency')
if named and redis.call('GET', prefix .. 'idempotency:' .. named) == id then
  redis.call('DEL', prefix .. 'idempotency:' .. named)
end
redis.call('ZREM', prefix .. 'state:dead', id)
redis.call('ZREM', prefix .. 'jobs:unanswered', id)
redis.call('ZREM', prefix .. 'webhooks', id)
redis.call('ZREM', prefix .. 'webhooks:dead', id)
redis.call('DEL', key, prefix .. 'followers:' .. id)
return 'discarded'
