-- Every change of the ledger. ARGV: 1 key prefix, 2 what is done, 3 attempt, 4 micro-dollars, 5 budget of a day in micro-dollars, 6 the most
-- that may be in flight. Money is counted in whole micro-dollars.
--
-- A day's hash holds `spent`, what has been settled on it, and `shut`, why nothing more may be reserved. A reservation
-- stands in `ledger:open` until it is settled, and counts against the day that it is by then: what may still be billed
-- today was perhaps reserved yesterday.
local prefix, act, attempt, micros = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local seconds = tonumber(redis.call('TIME')[1])
local day = tostring(math.floor(seconds / 86400))
local today, open = prefix .. 'ledger:day:' .. day, prefix .. 'ledger:open'
local KEEP_SECONDS = 40 * 86400

local function spend(amount)
  redis.call('HINCRBY', today, 'spent', string.format('%.0f', amount))
  redis.call('EXPIRE', today, KEEP_SECONDS)
end

local function reserved()
  local sum = 0
  for _, amount in ipairs(redis.call('HVALS', open)) do sum = sum + tonumber(amount) end
  return sum
end

if act == 'reserve' then
  if redis.call('HEXISTS', open, attempt) == 1 then return 'reserved' end
  if redis.call('HEXISTS', today, 'shut') == 1 then return 'shut' end
  if redis.call('HLEN', open) >= tonumber(ARGV[6]) then return 'no room' end
  local spent = tonumber(redis.call('HGET', today, 'spent') or 0)
  if spent + reserved() + micros > tonumber(ARGV[5]) then return 'no budget' end
  redis.call('HSET', open, attempt, string.format('%.0f', micros))
  return 'reserved'
end
if act == 'settle' or act == 'book' or act == 'release' then
  local held = redis.call('HGET', open, attempt)
  if not held then return 'unknown' end
  redis.call('HDEL', open, attempt)
  if act == 'settle' then spend(micros) elseif act == 'book' then spend(tonumber(held)) end
  return 'settled'
end
if act == 'shut' then
  redis.call('HSET', today, 'shut', attempt)
  redis.call('EXPIRE', today, KEEP_SECONDS)
  return 'shut'
end
if act == 'reopen' then
  redis.call('HDEL', today, 'shut')
  return 'open'
end
-- 'today'
local facts = redis.call('HMGET', today, 'spent', 'shut')
return {day, tostring(facts[1] or 0), string.format('%.0f', reserved()), tostring(redis.call('HLEN', open)), facts[2] or ''}
