-- The webhook that has been due for longest, for one worker to deliver. ARGV: 3 seconds until it comes back by itself, 4 how
-- many are passed over and keep their place, 5 seconds that others wait beyond those, 6 … whose are passed over: receivers.
-- Returns the id of its job and its receiver (host and port), or nothing. A job that is gone, or has been replayed, has no
-- end to tell of: its next one is told.
local waiting, refused, passed = prefix .. 'webhooks', {}, 0
for at = 6, #ARGV do refused[ARGV[at]] = true end
repeat
  local due = redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', passed, 100)
  for _, job in ipairs(due) do
    key = prefix .. 'job:' .. job
    local webhook = field('webhook')
    if webhook and ended(field('state')) then
      local receiver = (string.match(cjson.decode(webhook).url, '//([^/?#]+)') or ''):lower()
      if not refused[receiver] then
        redis.call('ZADD', waiting, now + ARGV[3], job)
        return { job, receiver }
      elseif passed < tonumber(ARGV[4]) then
        passed = passed + 1
      else
        redis.call('ZADD', waiting, now + ARGV[5], job)
      end
    else
      redis.call('ZREM', waiting, job)
    end
  end
until #due == 0
