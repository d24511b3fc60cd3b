-- Counts a request of a client.
-- KEYS: the client's limit
local arrival, left, wait = gcra(redis.call('GET', KEYS[1]))
if arrival then
  redis.call('SET', KEYS[1], arrival, 'PX', math.floor(wait / 1000) + 1)
end
return {left, wait}
