-- ARGV: 3 due_at ('' = now), 4 countdown ('' = none), 5 seconds until it expires ('' = never), 6 hash of the idempotency
-- key ('' = none), 7 fingerprint of the request, 8 whether the job of that key will do as well ('1'), 9.. field, value, …
-- Returns 'created'; or, and then nothing is changed, 'exists' where a job of this id does; or, with the id of the key's
-- first job: 'same' where that one will do, 'differs' where it is another request; 'follows' where this one waits for it.
if redis.call('EXISTS', key) == 1 then return {'exists', id} end
local named = ARGV[6] ~= '' and ARGV[6]
local first = owner_of(named)
if first then
  local facts = redis.call('HMGET', prefix .. 'job:' .. first, 'fingerprint', 'cancel_requested', 'expires_at', 'ticket')
  if facts[1] ~= ARGV[7] then return {'differs', first} end
  -- One that is about to be cancelled, may expire, or leaves no result will not do.
  local does = not facts[2] and not facts[3] and not cjson.decode(facts[4])['options']['ignore_result']
  if ARGV[8] == '1' and does then return {'same', first} end
end
for i = 9, #ARGV, 2 do redis.call('HSET', key, ARGV[i], ARGV[i + 1]) end
redis.call('HSET', key, 'submitted_at', now, 'attempts', 0, 'token', 0, 'ticket_number', 0)
if ARGV[5] ~= '' then redis.call('HSET', key, 'expires_at', string.format('%.3f', now + ARGV[5])) end
local start_at = ARGV[4] ~= '' and string.format('%.3f', now + ARGV[4]) or ARGV[3]
local deadline_seconds = field('deadline_seconds')
if deadline_seconds then
  local may_start_at = start_at ~= '' and math.max(now, start_at) or now
  redis.call('HSET', key, 'deadline_at', string.format('%.3f', may_start_at + deadline_seconds))
end
count('submitted')
if named then
  redis.call('HSET', key, 'idempotency', named, 'fingerprint', ARGV[7])
  if not first then redis.call('SET', prefix .. 'idempotency:' .. named, id) end
end
if first then
  if start_at ~= '' then redis.call('HSET', key, 'not_before', start_at) end
  follow(first)
  return {'follows', first}
end
if start_at ~= '' then make_due(start_at) else move('queued') end
return {'created', id}
