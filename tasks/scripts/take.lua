-- A worker met a ticket. ARGV: 3 number of the ticket, 4 worker, 5 max attempts, 6 retention, 7 to 9 the errors of a job
-- that expired, was cancelled while its worker died, or has run out of attempts, 10 lease seconds, 11 role of the worker.
-- Returns 'missing', 'stale', 'held', 'follows', 'elsewhere', 'taken' or the state of an ended job. 'taken' counts the
-- attempt and grows the token: whoever holds an older token can write no more.
local state = field('state')
if not state then return 'missing' end
local number, taken_number = ARGV[3], field('taken_number')
if ended(state) then
  -- The ticket that ended the job may come again, and is answered again; any other one has no part in its end.
  if taken_number and taken_number ~= number then return 'stale' end
  return state
end
if state == 'due' and number ~= field('ticket_number') then return 'stale' end
-- Thrown away safely: should its runner be dead, the lease runs out and brings the job back.
if state == 'running' then return 'held' end
-- A run at a provider is found again by bridges alone, and a job that stays at home is not for them. Of one that has no id,
-- or that the provider has forgotten by now (see `RemoteRun.gone_at`), a GPU worker books the price and does the job.
local remote, is_bridge = field('remote'), ARGV[11] == 'bridge'
local run = remote and cjson.decode(remote)
local gone = run and tonumber(now) > run.intended_at + 20 + run.ttl_seconds
if run and not is_bridge and (gone or type(run.run_id) ~= 'string') then
  leave_run()
  remote = false
end
if remote and not is_bridge or not remote and is_bridge and field('stays_home') then
  if state == 'due' then move('queued') end
  return 'elsewhere'
end
redis.call('HSET', key, 'taken_number', number)
local expires_at = field('expires_at')
if expires_at and not remote and tonumber(now) > tonumber(expires_at) then
  finish('expired', 'error', ARGV[7], ARGV[6])
  return 'expired'
end
if field('cancel_requested') and not remote then
  finish('cancelled', 'error', ARGV[8], ARGV[6])
  return 'cancelled'
end
local first = field('follows')
if first then
  if redis.call('EXISTS', prefix .. 'job:' .. first) == 0 then first = owner_of(field('idempotency')) end
  local first_key = prefix .. 'job:' .. (first or '')
  local end_state = first and redis.call('HGET', first_key, 'state')
  if end_state == 'done' or end_state == 'dead' then
    local name = end_state == 'done' and 'result' or 'error'
    finish(end_state, name, redis.call('HGET', first_key, name), ARGV[6])
    return end_state
  elseif end_state and not ended(end_state) then
    follow(first)
    return 'follows'
  end
  -- The first job is lost, or was discarded: this one runs in its place.
  redis.call('HDEL', key, 'follows')
  redis.call('SET', prefix .. 'idempotency:' .. field('idempotency'), id)
end
if not remote and tonumber(field('attempts')) >= tonumber(ARGV[5]) then
  finish('dead', 'error', ARGV[9], ARGV[6])
  return 'dead'
end
move('running')
redis.call('ZREM', prefix .. 'fleet:idle', ARGV[4])
redis.call('ZADD', prefix .. 'leases', now + ARGV[10], id)
if not remote then
  redis.call('HINCRBY', key, 'attempts', 1)
  count('attempts')
end
redis.call('HINCRBY', key, 'token', 1)
redis.call('HSET', key, 'started_at', now, 'worker', ARGV[4])
redis.call('HDEL', key, 'stage', 'percent', 'stage_seconds', 'due_at', 'speed')
local speed = redis.call('HGET', prefix .. 'fleet:speeds', ARGV[4])
if speed then redis.call('HSET', key, 'speed', speed) end
return 'taken'
