-- The end of a reservation. Arguments: the attempt's id; the cost, or nothing for all of the reservation. Answers with what
-- was reserved.
local amount = close_reservation(ARGV[4], ARGV[5] ~= '' and ARGV[5])
return { number(), amount }
