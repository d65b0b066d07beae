-- Argument: why.
close_valve(ARGV[3])
changed()
return { number }
