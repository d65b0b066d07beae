-- The operator knows what has been spent, or does not mind. Answers with why it was shut.
local why = redis.call('GET', shut)
redis.call('DEL', shut)
redis.call('INCR', budget.changes)
return { number(), why }
