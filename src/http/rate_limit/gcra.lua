-- GCRA: one request per `interval` microseconds, and as many at once as fit into `window`.
-- Counts a request. Takes what it returned first for the one before; returns that for the next, or `false` for one too many;
-- and the debt: the microseconds until all are free again, with this one counted.
local function gcra(arrival, now, window, interval)
  arrival = arrival and struct.unpack('<d', arrival) or now
  if arrival < now then
    arrival = now
  end
  arrival = arrival + interval
  local debt = arrival - now
  return debt <= window and struct.pack('<d', arrival), debt
end

-- Redis's clock: those of its callers may differ.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
