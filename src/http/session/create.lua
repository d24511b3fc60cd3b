-- Starts a session; the account's dead ones go, and with ARGV[3] = "1" all others too.
-- KEYS: the account's sessions      ARGV: token hash, session, alone
-- The settings stand before this, in microseconds: `idle` and `life`.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if ARGV[3] == '1' then
  redis.call('DEL', KEYS[1])
end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local created, seen = string.match(all[i + 1], '^(%d+) (%d+) ')
  if now >= seen + idle or now >= created + life then
    redis.call('HDEL', KEYS[1], all[i])
  end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f %s', now, now, ARGV[2]))
redis.call('PEXPIRE', KEYS[1], math.ceil(life / 1000))
return string.format('%.0f', now)
