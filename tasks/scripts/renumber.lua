-- A waiting job gets a new ticket; the one before is stale from now on. Returns the new number, or nothing.
if field('state') ~= 'queued' then return nil end
return redis.call('HINCRBY', key, 'ticket_number', 1)
