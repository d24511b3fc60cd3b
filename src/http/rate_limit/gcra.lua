-- GCRA on Redis's clock: one request per `interval` microseconds, and as many at once as fit into `window`.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- Counts a request. Takes what it returned first for the one before; returns that for the next, or `nil` for one too many,
-- the requests left, or -1, and the microseconds until all are free again, or one is.
local function gcra(arrival)
  arrival = tonumber(arrival or 0)
  if arrival < now then
    arrival = now
  end
  arrival = arrival + interval
  local wait = arrival - now
  if wait > window then
    return nil, -1, math.ceil(wait - window)
  end
  -- At this size a number is exact to a quarter.
  return string.format(digits, arrival), (window - wait + 0.25) / interval, wait
end
