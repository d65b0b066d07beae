-- ARGV: 3 the error of a cancelled job, 4 retention. Returns the state before, or 'missing'.
local state = field('state')
if not state then return 'missing' end
if state == 'queued' or state == 'due' then
  finish('cancelled', 'error', ARGV[3], ARGV[4])
elseif state == 'running' then
  redis.call('HSET', key, 'cancel_requested', now)
end
return state
