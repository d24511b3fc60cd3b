-- Finds a session that is still alive, marks it as seen, and counts the request against its account; returns that debt, in
-- nanoseconds, before the session.
-- KEYS: the account's sessions      ARGV: token hash
-- The settings stand before this, in microseconds: `idle`, `life`, and how `stale` the mark may get; and the limit.
local session = redis.call('HGET', KEYS[1], ARGV[1])
if not session then
  return false
end
local created, seen = struct.unpack('<i8i8', session)
if now >= seen + idle or now >= created + life then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return false
end
if now >= seen + stale then
  redis.call('HSET', KEYS[1], ARGV[1], struct.pack('<i8i8', created, now) .. string.sub(session, 17))
end
local arrival, debt = gcra(redis.call('HGET', KEYS[1], 'limit'), now, window, interval)
if arrival then
  redis.call('HSET', KEYS[1], 'limit', arrival)
end
-- An answer in one piece costs Redis much less than a list.
return struct.pack('<i8', debt * 1000) .. session
