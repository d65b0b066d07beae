-- Before a job is sent. Arguments: the attempt's id, the amount, the most in flight, the day's limit.
local attempt, amount, most, limit = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])

local function outcome()
  -- First: after older data came back, an attempt that has long been paid for may be open again.
  if redis.call('EXISTS', shut) == 1 then return 'shut' end
  if redis.call('HEXISTS', budget.open, attempt) == 1 then return 'reserved' end
  if redis.call('HLEN', budget.open) >= most then return 'no room' end
  if spent_today() + reserved() + tonumber(amount) > limit then return 'no budget' end
  redis.call('HSET', budget.open, attempt, amount)
  redis.call('INCR', budget.changes)
  return 'reserved'
end

local found = outcome()
return { number(), found }
