-- Finds a session that is still alive, marks it as seen, and counts the request against its account.
-- KEYS: the account's sessions, the account's limit
-- ARGV: token hash, idle us, whole life us, how stale the mark may get us, requests, per us
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then
  return false
end
local created, seen, rest = string.match(value, '^(%d+) (%d+) (.*)$')
local now = now_us()
if now >= seen + ARGV[2] or now >= created + ARGV[3] then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return false
end
if now >= seen + ARGV[4] then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f %s', created, now, rest))
end
return {value, gcra(KEYS[2], now, ARGV[5], ARGV[6])}
