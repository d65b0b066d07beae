-- ARGV: 3 number of the ticket that was published. A worker may have been quicker and have taken it.
if field('state') == 'due' and field('ticket_number') == ARGV[3] then
  move('queued')
  redis.call('HDEL', key, 'due_at')
end
return 1
