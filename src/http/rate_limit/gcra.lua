-- GCRA on Redis's clock, of `count` requests per `window` microseconds. Returns the requests left, or -1 for one too many,
-- and the microseconds until all are free again, or that one is.
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function gcra(key, now)
  local interval = window / count
  local arrival = math.max(tonumber(redis.call('GET', key) or 0), now) + interval
  local wait = arrival - now
  if wait > window then
    return -1, math.ceil(wait - window)
  end
  redis.call('SET', key, arrival, 'PX', math.floor(wait / 1000) + 1)
  -- At this size a number is exact to a quarter.
  return math.floor((window - wait + 0.25) / interval), math.ceil(wait)
end
