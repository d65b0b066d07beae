-- How the day stands.
return { number(), budget.day, spent_today(), reserved(), redis.call('HLEN', budget.open), redis.call('GET', shut) }
