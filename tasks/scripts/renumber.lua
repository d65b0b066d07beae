-- A number for another ticket of a waiting job, should the one before be lost; either starts it. Nothing if it does not wait.
if field('state') ~= 'queued' then return nil end
return redis.call('HINCRBY', key, 'ticket_number', 1)
