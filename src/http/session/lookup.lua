-- Finds a session that is still alive, marks it as seen, and counts the request against its account.
-- KEYS: the account's sessions      ARGV: token hash
-- The settings stand before this, in microseconds: `idle`, `life`, and how `stale` the mark may get; and the limit.
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then
  return false
end
-- Times have 16 digits from 2001 to 2286.
local created, seen = string.sub(value, 1, 16), string.sub(value, 18, 33)
if now >= seen + idle or now >= created + life then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return false
end
if now >= seen + stale then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f%s', created, now, string.sub(value, 34)))
end
local arrival, left, wait = gcra(redis.call('HGET', KEYS[1], 'limit'))
if arrival then
  redis.call('HSET', KEYS[1], 'limit', arrival)
end
-- An answer in one piece costs Redis much less than a list.
return string.format('%d %d ', left, wait) .. value
