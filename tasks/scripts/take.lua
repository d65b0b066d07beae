-- A worker met a ticket. ARGV: 3 number of the ticket, 4 worker, 5 max attempts, 6 retention,
-- 7 to 9 the errors of a job that expired, was cancelled while its worker died, or has run out of attempts.
-- Returns 'missing', 'stale', 'taken' or the state of an ended job. 'taken' counts the attempt and grows the token:
-- whoever holds an older token can write no more.
local state = field('state')
if not state then return 'missing' end
if ended(state) then return state end
if field('ticket_number') ~= ARGV[3] then return 'stale' end
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
redis.call('HINCRBY', key, 'attempts', 1)
redis.call('HINCRBY', key, 'token', 1)
redis.call('HSET', key, 'started_at', now, 'worker', ARGV[4])
redis.call('HDEL', key, 'stage', 'percent', 'due_at')
return 'taken'
