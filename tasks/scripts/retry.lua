-- ARGV: 3 token, 4 seconds to wait, 5 the error, 6 whether the attempt counts ('1' or '0'), 7 bytes of memory that the job
-- needs ('' = unknown). A try at a provider that is not over goes on, and so does its attempt.
-- Returns 'due', or 'stale' where somebody else runs the job now.
if field('token') ~= ARGV[3] then return 'stale' end
if field('state') == 'running' then
  redis.call('HSET', key, 'last_error', ARGV[5])
  if ARGV[6] == '0' and not field('remote') then redis.call('HINCRBY', key, 'attempts', -1) end
  if ARGV[7] ~= '' then redis.call('HSET', key, 'needs_bytes', ARGV[7]) end
  count('retries:' .. cjson.decode(ARGV[5]).code)
  make_due(string.format('%.3f', now + ARGV[4]))
end
return field('state')
