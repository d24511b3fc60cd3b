-- Ends the session with the public handle ARGV[1]; returns how many ended.
-- KEYS: the account's sessions
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if string.sub(all[i + 1], 17, 32) == ARGV[1] then
    return redis.call('HDEL', KEYS[1], all[i])
  end
end
return 0
