-- ARGV: 3 token, 4 state, 5 field ('result' or 'error'), 6 its value, 7 retention; of a job that is done 8 seconds of audio,
-- 9 whether its worker has done it itself ('1').
-- Returns the job's state after the call: it is ARGV[4] also where an earlier try of the same runner got through.
local state = field('state')
if not state then return 'missing' end
if field('token') ~= ARGV[3] then return 'stale' end
-- Where the lease has lapsed and nobody has started anew, the work is as good as ever.
if not ended(state) then
  finish(ARGV[4], ARGV[5], ARGV[6], ARGV[7])
  if ARGV[8] then learn(tonumber(ARGV[8]), ARGV[9] == '1') end
end
return field('state')
