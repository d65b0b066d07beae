-- How the day stands.
return { number, day, spent_today(), reserved(), redis.call('HLEN', open), redis.call('GET', shut) }
