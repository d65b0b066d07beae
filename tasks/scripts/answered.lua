-- Celery has been told of the job's end: result, callbacks, chord. A copy of its ticket does none of it again.
redis.call('ZREM', prefix .. 'unanswered', id)
if redis.call('EXISTS', key) == 1 then redis.call('HSET', key, 'answered', now) end
return 1
