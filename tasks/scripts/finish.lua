-- ARGV: 3 token, 4 state, 5 field ('result' or 'error'), 6 its value, 7 retention; of a job that is done also 8 the work
-- that it was, as JSON: seconds of audio, seconds, seconds by stage; 9 who did it.
-- Returns the job's state after the call: it is ARGV[4] also where an earlier try of the same runner got through.
local state = field('state')
if not state then return 'missing' end
if field('token') ~= ARGV[3] then return 'stale' end

-- See tasks/speed.py: of what a worker did two audio hours ago half counts, and of a length 34 jobs ago.
local HALF_LIFE_AUDIO_SECONDS, KEPT_LENGTHS = 7200, 0.98

-- What the worker has done so far, faded, and this job's work: sums, of which a mean is the quotient.
local function learn(work, worker)
  local key_of_speeds = prefix .. 'fleet:speeds'
  local known = redis.call('HGET', key_of_speeds, worker)
  local sums = known and cjson.decode(known) or { audio_seconds = 0, seconds = 0, stage_seconds = {} }
  local kept = 0.5 ^ (work.audio_seconds / HALF_LIFE_AUDIO_SECONDS)
  sums.audio_seconds = kept * sums.audio_seconds + work.audio_seconds
  sums.seconds = kept * sums.seconds + work.seconds
  for stage, seconds in pairs(sums.stage_seconds) do sums.stage_seconds[stage] = kept * seconds end
  for stage, seconds in pairs(work.stage_seconds) do
    sums.stage_seconds[stage] = (sums.stage_seconds[stage] or 0) + seconds
  end
  redis.call('HSET', key_of_speeds, worker, cjson.encode(sums))
end

-- How long recordings are: what stands in for a length that nobody knows yet.
local function note_length(audio_seconds)
  local lengths = prefix .. 'fleet:lengths'
  local known = redis.call('HMGET', lengths, 'jobs', 'audio_seconds')
  redis.call('HSET', lengths, 'jobs', KEPT_LENGTHS * (known[1] or 0) + 1,
    'audio_seconds', KEPT_LENGTHS * (known[2] or 0) + audio_seconds)
end

-- See tasks/metrics.py, which has the same bounds: seconds from submission to end.
local FINISH_SECONDS = { 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400 }

local function count_work(work, provider)
  count('audio_seconds:' .. provider, work.audio_seconds)
  for stage, seconds in pairs(work.stage_seconds) do count('stage_seconds:' .. stage .. ':' .. provider, seconds) end
  local took = now - field('submitted_at')
  count('finish_count')
  count('finish_seconds', took)
  for _, bound in ipairs(FINISH_SECONDS) do
    if took <= bound then return count('finish_bucket:' .. bound) end
  end
end

-- Where the lease has lapsed and nobody has started anew, the work is as good as ever.
if not ended(state) then
  -- First: a Redis that is full lets a script write on that has begun by removing something.
  finish(ARGV[4], ARGV[5], ARGV[6], ARGV[7])
  if ARGV[8] then
    local work = cjson.decode(ARGV[8])
    redis.call('HSET', key, 'audio_seconds', work.audio_seconds)
    learn(work, field('worker'))
    note_length(work.audio_seconds)
    count_work(work, ARGV[9])
  end
end
return field('state')
