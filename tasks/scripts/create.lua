-- ARGV: 3 due_at ('' = now), 4 countdown ('' = none), 5 seconds until it expires ('' = never), 6 hash of the idempotency
-- key ('' = none), 7 fingerprint of the request, 8 whether the job of that key will do as well ('1'), 9.. field, value, …
-- Returns 'created'; or, and then nothing is changed, 'exists' where a job of this id does; or, with the id of the key's
-- first job: 'same' where that one will do, 'differs' where it is another request; 'follows' where this one waits for it.
if redis.call('EXISTS', key) == 1 then return {'exists', id} end
local named, owner, first = ARGV[6], prefix .. 'idempotency:' .. ARGV[6], nil
if named ~= '' then
  first = redis.call('GET', owner)
  local first_key = first and prefix .. 'job:' .. first
  if first and redis.call('EXISTS', first_key) == 0 then first = nil end
  if first and redis.call('HGET', first_key, 'fingerprint') ~= ARGV[7] then return {'differs', first} end
  if first and ARGV[8] == '1' then return {'same', first} end
end
for i = 9, #ARGV, 2 do redis.call('HSET', key, ARGV[i], ARGV[i + 1]) end
redis.call('HSET', key, 'submitted_at', now, 'attempts', 0, 'token', 0, 'ticket_number', 0)
if ARGV[5] ~= '' then redis.call('HSET', key, 'expires_at', string.format('%.3f', now + ARGV[5])) end
if named ~= '' then
  redis.call('HSET', key, 'idempotency', named, 'fingerprint', ARGV[7])
  if not first then redis.call('SET', owner, id) end
end
if first then
  wait_for(first)
  if ended(redis.call('HGET', prefix .. 'job:' .. first, 'state')) then wait_until(now) end
  return {'follows', first}
end
if ARGV[4] ~= '' then
  wait_until(string.format('%.3f', now + ARGV[4]))
elseif ARGV[3] ~= '' then
  wait_until(ARGV[3])
else
  move('queued')
end
return {'created', id}
