-- Begins every script of the ledger, after the one of the folder above: ARGV[1] is the key prefix, ARGV[2] empty, for no job.
-- ARGV[3] is the number of the last change that the caller has heard of; a script's own arguments follow from ARGV[4]. Every
-- answer begins with that number as it is now. Days and times are the server's, amounts whole micro-dollars.
local shut = prefix .. 'budget:shut'

-- Nothing is reserved until the UTC day is over, or the operator reopens.
local function close_valve(why)
  redis.call('SET', shut, why, 'EXAT', string.format('%d', (budget.day + 1) * 86400))
end

local function number()
  return tonumber(redis.call('GET', budget.changes) or 0)
end

-- Where the server knows of fewer changes than a caller does, what is missing may have been money.
if number() < tonumber(ARGV[3]) then
  close_valve('Redis has lost data of the ledger')
  redis.call('SET', budget.changes, ARGV[3])
end

local function spent_today()
  return tonumber(redis.call('GET', budget.spent) or 0)
end

-- Of jobs in flight, whichever day they were sent on: they may cost something today.
local function reserved()
  local sum = 0
  for _, amount in ipairs(redis.call('HVALS', budget.open)) do sum = sum + tonumber(amount) end
  return sum
end
