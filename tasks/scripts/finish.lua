-- ARGV: 3 token, 4 state, 5 field ('result' or 'error'), 6 its value, 7 retention.
-- Returns the job's state after the call: it is ARGV[4] also where an earlier try of the same runner got through.
local state = field('state')
if not state then return 'missing' end
if field('token') ~= ARGV[3] then return 'stale' end
-- Where the lease has lapsed and nobody has started anew, the work is as good as ever.
if not ended(state) then finish(ARGV[4], ARGV[5], ARGV[6], ARGV[7]) end
return field('state')
