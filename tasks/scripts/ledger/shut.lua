-- Argument: why.
close_valve(ARGV[4])
redis.call('INCR', budget.changes)
return { number() }
