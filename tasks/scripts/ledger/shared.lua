-- Begins every script of the ledger. ARGV[1] is the key prefix, ARGV[2] the number of the last change that the caller has
-- heard of; a script's own arguments follow from ARGV[3]. Days and times are the server's, amounts whole micro-dollars.
local prefix, heard_of = ARGV[1] .. 'budget:', tonumber(ARGV[2])
local open, shut, changes = prefix .. 'open', prefix .. 'shut', prefix .. 'changes'
local DAY_SECONDS, KEPT_DAYS = 86400, 35
local day = math.floor(redis.call('TIME')[1] / DAY_SECONDS)
local spent = prefix .. 'spent:' .. string.format('%d', day)

-- Nothing is reserved until the UTC day is over, or the operator reopens.
local function close_valve(why)
  redis.call('SET', shut, why, 'EXAT', string.format('%d', (day + 1) * DAY_SECONDS))
end

-- Each change has a number. Where the server knows of fewer than a caller does, what is missing may have been money.
local number = tonumber(redis.call('GET', changes) or 0)
if number < heard_of then
  close_valve('Redis has lost data of the ledger')
  redis.call('SET', changes, ARGV[2])
  number = heard_of
end

local function changed()
  number = redis.call('INCR', changes)
end

local function spent_today()
  return tonumber(redis.call('GET', spent) or 0)
end

-- Of jobs in flight, whichever day they were sent on: they may cost something today.
local function reserved()
  local sum = 0
  for _, amount in ipairs(redis.call('HVALS', open)) do sum = sum + tonumber(amount) end
  return sum
end
