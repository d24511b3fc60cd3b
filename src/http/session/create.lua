-- Starts a session and returns it; the account's dead ones go, and with ARGV[3] = "1" all others too.
-- KEYS: the account's sessions      ARGV: token hash, what follows the times in a session, alone
-- The settings stand before this, in microseconds: `idle`, `life` and the limit's `window`; and `now`.
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] ~= 'limit' then
    local created, seen = struct.unpack('<i8i8', all[i + 1])
    if ARGV[3] == '1' or now >= seen + idle or now >= created + life then
      redis.call('HDEL', KEYS[1], all[i])
    end
  end
end
local session = struct.pack('<i8i8', now, now) .. ARGV[2]
redis.call('HSET', KEYS[1], ARGV[1], session)
-- The limit outlives the sessions: signing in again is no way around it.
redis.call('PEXPIRE', KEYS[1], math.ceil((life + window) / 1000))
return session
