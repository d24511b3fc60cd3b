-- Counts a request of a client; returns its debt in nanoseconds.
-- KEYS: the client's limit
local arrival, debt = gcra(redis.call('GET', KEYS[1]), now, window, interval)
if arrival then
  redis.call('SET', KEYS[1], arrival, 'PX', math.floor(debt / 1000) + 1)
end
return debt * 1000
