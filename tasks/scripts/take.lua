-- A worker met a ticket. ARGV: 3 number of the ticket, 4 worker, 5 max attempts, 6 retention, 10 lease seconds,
-- 7 to 9 the errors of a job that expired, was cancelled while its worker died, or has run out of attempts.
-- Returns 'missing', 'stale', 'held', 'taken' or the state of an ended job. 'held' is a copy of a ticket whose job runs
-- elsewhere: it may be thrown away, the lease brings the job back should its runner die. 'taken' counts the attempt and
-- grows the token: whoever holds an older token can write no more.
local state = field('state')
if not state then return 'missing' end
if ended(state) then return state end
if field('ticket_number') ~= ARGV[3] then return 'stale' end
if state == 'running' then
  local leased_until = redis.call('ZSCORE', prefix .. 'leases', id)
  if leased_until and tonumber(leased_until) > tonumber(now) then return 'held' end
end
local expires_at = field('expires_at')
if expires_at and tonumber(now) > tonumber(expires_at) then
  finish('expired', 'error', ARGV[7], ARGV[6])
  return 'expired'
end
if field('cancel_requested') then
  finish('cancelled', 'error', ARGV[8], ARGV[6])
  return 'cancelled'
end
if tonumber(field('attempts')) >= tonumber(ARGV[5]) then
  finish('dead', 'error', ARGV[9], ARGV[6])
  return 'dead'
end
move('running')
redis.call('ZADD', prefix .. 'leases', now + ARGV[10], id)
redis.call('HINCRBY', key, 'attempts', 1)
redis.call('HINCRBY', key, 'token', 1)
redis.call('HSET', key, 'started_at', now, 'worker', ARGV[4])
redis.call('HDEL', key, 'stage', 'percent', 'due_at')
return 'taken'
