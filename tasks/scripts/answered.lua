-- Celery has been told of the job's end: result, callbacks, chord. A copy of its ticket does none of it again.
-- ARGV: 3 number of the ticket by which it was told; that of a life before a replay says nothing of this one.
local state, taken_number = field('state'), field('taken_number')
if state and (not ended(state) or (taken_number and taken_number ~= ARGV[3])) then return 0 end
redis.call('ZREM', prefix .. 'jobs:unanswered', id)
if state then redis.call('HSET', key, 'answered', now) end
return 1
