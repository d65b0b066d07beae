-- Begins every script. ARGV[1] is the key prefix, ARGV[2] the job's id; a script's own arguments follow from ARGV[3].
-- One clock for the fleet: times are the server's, in seconds since 1970.
local prefix, id = ARGV[1], ARGV[2]
local key = prefix .. 'job:' .. id
local clock = redis.call('TIME')
local now = string.format('%.3f', clock[1] + clock[2] / 1e6)

local function field(name)
  return redis.call('HGET', key, name)
end

-- The only way a job changes its state: the record, the index by state, the due-set and the leases move together. A job
-- that is due is in the due-set, a running one has a lease: so each is found again, whoever dies.
local function move(to)
  local from = field('state')
  if from then redis.call('ZREM', prefix .. 'state:' .. from, id) end
  redis.call('HSET', key, 'state', to)
  redis.call('ZADD', prefix .. 'state:' .. to, now, id)
  if to ~= 'due' then redis.call('ZREM', prefix .. 'due', id) end
  if to ~= 'running' then redis.call('ZREM', prefix .. 'leases', id) end
end

-- A cancel that came while the job ran is heard when the job is taken next, which is then at once. The new ticket number
-- belongs to no ticket yet: copies of older ones cannot start the job before its time.
local function wait_until(due_at)
  redis.call('HINCRBY', key, 'ticket_number', 1)
  if field('cancel_requested') then due_at = now end
  move('due')
  redis.call('HSET', key, 'due_at', due_at)
  redis.call('HDEL', key, 'stage', 'percent')
  redis.call('ZADD', prefix .. 'due', due_at, id)
end

-- An ended job keeps its URL and headers only as a dead letter, which can be replayed.
local function finish(state, name, value, retention_seconds)
  move(state)
  redis.call('HSET', key, name, value, 'ended_at', now)
  redis.call('HDEL', key, 'stage', 'percent', 'cancel_requested', 'due_at')
  if state ~= 'dead' then redis.call('HDEL', key, 'request') end
  redis.call('EXPIRE', key, retention_seconds)
  redis.call('ZREMRANGEBYSCORE', prefix .. 'state:' .. state, '-inf', now - retention_seconds)
end

local function ended(state)
  return state == 'done' or state == 'dead' or state == 'cancelled' or state == 'expired'
end
