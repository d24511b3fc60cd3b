-- GCRA on Redis's clock. Returns {allowed, requests left, microseconds until one is free or, if allowed, until all are}.
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function gcra(key, now, count, window)
  local interval = window / count
  local arrival = math.max(tonumber(redis.call('GET', key) or 0), now) + interval
  local early = arrival - window - now
  if early > 0 then
    return {0, 0, math.ceil(early)}
  end
  redis.call('SET', key, string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000))
  return {1, math.floor((window - (arrival - now)) / interval), math.ceil(arrival - now)}
end
