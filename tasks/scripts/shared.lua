-- Begins every script. ARGV[1] is the key prefix, ARGV[2] the job's id; a script's own arguments follow from ARGV[3].
-- One clock for the fleet: times are the server's, in seconds since 1970.
local prefix, id = ARGV[1], ARGV[2]
local key = prefix .. 'job:' .. id
local clock = redis.call('TIME')
local now = string.format('%.3f', clock[1] + clock[2] / 1e6)

local function field(name)
  return redis.call('HGET', key, name)
end

local function ended(state)
  return state == 'done' or state == 'dead' or state == 'cancelled' or state == 'expired'
end

-- Sums of the fleet, as `tasks/metrics.py` shows them: what is counted here is counted once, by the step that did it.
local function count(name, by)
  redis.call('HINCRBYFLOAT', prefix .. 'fleet:counters', name, by or 1)
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

-- The ledger's keys, as `tasks/overflow/budget.py` explains them: reservations by attempt, changes, what today (UTC) has cost.
local day = math.floor(clock[1] / 86400)
local budget = {
  day = day,
  open = prefix .. 'budget:open',
  changes = prefix .. 'budget:changes',
  spent = prefix .. 'budget:spent:' .. string.format('%d', day),
}

-- The end of a reservation: its cost takes its place, today, or all of it where there is no `cost`. Returns what was
-- reserved (false where there is no such reservation) and what it has cost.
local function close_reservation(attempt, cost)
  local amount = redis.call('HGET', budget.open, attempt)
  if not amount then return false end
  cost = cost or amount
  redis.call('HDEL', budget.open, attempt)
  redis.call('INCR', budget.changes)
  redis.call('INCRBY', budget.spent, cost)
  redis.call('EXPIRE', budget.spent, 35 * 86400)
  count('cost_usd', cost / 1e6)
  return amount, cost
end

-- The job has nothing more to do with its run at a provider. Was it sent, then all that was reserved for it counts as
-- spent, unless it has been settled; was it not, then nothing is owed.
local function leave_run()
  local stored = field('remote')
  if not stored then return end
  local run = cjson.decode(stored)
  redis.call('HDEL', key, 'remote')
  local amount, cost = close_reservation(run.attempt_id, not run.is_sent and 0)
  if amount then redis.call('HINCRBYFLOAT', key, 'cost_usd', cost / 1e6) end
end

-- A cancel that came while the job ran is heard when the job is taken next, which is then at once. The new ticket number
-- belongs to no ticket yet: copies of older ones cannot start the job before its time.
local function make_due(due_at)
  local run = field('remote')
  -- Of a run that was not sent there is nothing to find, and its reservation must not keep others out.
  if run and not cjson.decode(run).is_sent then leave_run() end
  redis.call('HINCRBY', key, 'ticket_number', 1)
  if field('cancel_requested') then due_at = now end
  move('due')
  redis.call('HSET', key, 'due_at', due_at)
  redis.call('HDEL', key, 'stage', 'percent')
  redis.call('ZADD', prefix .. 'due', due_at, id)
end

-- A job that follows another waits for that one's end, which calls it, or is due where that has ended. The hour is for a
-- first job that Redis has lost.
local function follow(first)
  redis.call('HSET', key, 'follows', first)
  if ended(redis.call('HGET', prefix .. 'job:' .. first, 'state')) then return make_due(now) end
  make_due(now + 3600)
  redis.call('HDEL', key, 'due_at')
  redis.call('RPUSH', prefix .. 'followers:' .. first, id)
end

-- The job that answers for an idempotency key, unless it is this one.
local function owner_of(named)
  local owner = named and redis.call('GET', prefix .. 'idempotency:' .. named)
  if owner and owner ~= id and redis.call('EXISTS', prefix .. 'job:' .. owner) == 1 then return owner end
end

-- Wake `job`, which follows this one, or let it follow `heir`, unless it has ended meanwhile; whether it waited.
local function wake(job, heir)
  local own_id, own_key = id, key
  id, key = job, prefix .. 'job:' .. job
  local waits = field('state') == 'due' and field('follows') == own_id
  if waits and heir then
    follow(heir)
  elseif waits then
    local not_before = field('not_before')
    make_due(not_before and tonumber(not_before) > tonumber(now) and not_before or now)
  end
  id, key = own_id, own_key
  return waits
end

-- What becomes of the idempotency key of a job that ends in `state`, and of the jobs that follow it. A result or a dead
-- letter is an answer for all; who was cancelled or has expired leaves the key to the next in line, which then runs.
local function bequeath(state, retention_seconds)
  local named = field('idempotency')
  if not named then return end
  local owner, followers = prefix .. 'idempotency:' .. named, prefix .. 'followers:' .. id
  if redis.call('GET', owner) ~= id then return end
  local waiting, heir = redis.call('LRANGE', followers, 0, -1), nil
  redis.call('DEL', followers)
  local answered = state == 'done' or state == 'dead'
  for _, job in ipairs(waiting) do
    if wake(job, heir) and not answered and not heir then
      heir = job
      redis.call('HDEL', prefix .. 'job:' .. heir, 'follows')
    end
  end
  if answered then
    redis.call('EXPIRE', owner, retention_seconds)
  elseif heir then
    redis.call('SET', owner, heir)
  else
    redis.call('DEL', owner)
  end
end

-- Whoever asked for it is told of the job's end.
local function call_webhook()
  if not field('webhook') then return end
  redis.call('HDEL', key, 'webhook_tries', 'webhook_error', 'webhook_told_at', 'webhook_again_at')
  redis.call('ZREM', prefix .. 'webhooks:dead', id)
  redis.call('ZADD', prefix .. 'webhooks', now, id)
end

-- An ended job keeps its URL and headers only as a dead letter, which can be replayed. Until Celery has been told of the
-- end (`answered`), the job is in `unanswered`: so whoever waits for it hears of it, whoever dies.
local function finish(state, name, value, retention_seconds)
  move(state)
  redis.call('HSET', key, name, value, 'ended_at', now)
  redis.call('HDEL', key, 'stage', 'percent', 'cancel_requested', 'due_at', 'answered', 'speed', 'stays_home')
  leave_run()
  if state ~= 'dead' then redis.call('HDEL', key, 'request') end
  redis.call('EXPIRE', key, retention_seconds)
  if state == 'cancelled' then redis.call('HDEL', key, 'taken_number') end  -- any ticket may say so
  redis.call('ZADD', prefix .. 'jobs:unanswered', now, id)
  count('ended:' .. state .. ':' .. (name == 'error' and cjson.decode(value).code or ''))
  call_webhook()
  bequeath(state, retention_seconds)
end
