-- Ends the account's sessions, not its limit.
-- KEYS: the account's sessions
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if field ~= 'limit' then
    redis.call('HDEL', KEYS[1], field)
  end
end
