-- ARGV: 3 the error of a cancelled job, 4 retention. Returns the state before, or 'missing'.
local state = field('state')
if not state then return 'missing' end
local waits = state == 'queued' or state == 'due'
local remote = field('remote')
if waits and remote and cjson.decode(remote).is_sent then
  -- It runs at a provider, whom a bridge has to tell.
  redis.call('HSET', key, 'cancel_requested', now)
  if state == 'due' then make_due(now) end
  return 'running'
elseif waits then
  finish('cancelled', 'error', ARGV[3], ARGV[4])
elseif state == 'running' then
  redis.call('HSET', key, 'cancel_requested', now)
end
return state
