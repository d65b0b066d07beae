-- ARGV: 3 due_at ('' = now), 4 countdown ('' = none), 5 seconds until it expires ('' = never), 6.. field, value, …
-- Returns 1, or 0 where a job of this id exists (then nothing is changed).
if redis.call('EXISTS', key) == 1 then return 0 end
for i = 6, #ARGV, 2 do redis.call('HSET', key, ARGV[i], ARGV[i + 1]) end
redis.call('HSET', key, 'submitted_at', now, 'attempts', 0, 'token', 0, 'ticket_number', 0)
if ARGV[5] ~= '' then redis.call('HSET', key, 'expires_at', string.format('%.3f', now + ARGV[5])) end
if ARGV[4] ~= '' then
  wait_until(string.format('%.3f', now + ARGV[4]))
elseif ARGV[3] ~= '' then
  wait_until(ARGV[3])
else
  move('queued')
end
return 1
