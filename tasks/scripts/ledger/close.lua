-- The end of a reservation: its cost takes its place, today. Arguments: the attempt's id; the cost, or nothing for all of
-- the reservation. Answers with what was reserved.
local attempt, cost = ARGV[3], ARGV[4]
local amount = redis.call('HGET', open, attempt)
if amount then
  redis.call('HDEL', open, attempt)
  redis.call('INCRBY', spent, cost == '' and amount or cost)
  redis.call('EXPIRE', spent, KEPT_DAYS * DAY_SECONDS)
  redis.call('HINCRBYFLOAT', ARGV[1] .. 'fleet:counters', 'cost_usd', (cost == '' and amount or cost) / 1e6)
  changed()
end
return { number, amount }
