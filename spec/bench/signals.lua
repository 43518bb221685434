--- Reactive values: a signal is set, what follows from it is computed, and an effect runs. Keys:
-- "signals.on.one" (compiled) and "signals.off.one" (interpreted).
-- @module signals

local TEXT = {
  --- One signal, one computed value, one effect.
  one = [[
    local treadle = ...
    local s, seen = treadle.signal(0), 0
    local c = treadle.computed(function() return s:get() + 1 end)
    treadle.effect(function() seen = c:get() end)
    local value = 0
    return function(n)
      for _ = 1, n do
        value = value + 1
        s:set(value)
        treadle.flush()
      end
      if seen ~= value + 1 then error("an effect was left out") end
    end]],
  --- A diamond: a hundred computed values between the signal and the effect.
  wide = [[
    local treadle = ...
    local s, sides, seen = treadle.signal(0), {}, 0
    for i = 1, 100 do sides[i] = treadle.computed(function() return s:get() + i end) end
    treadle.effect(function()
      local sum = 0
      for i = 1, 100 do sum = sum + sides[i]:get() end
      seen = sum
    end)
    local value = 0
    return function(n)
      for _ = 1, n do
        value = value + 1
        s:set(value)
        treadle.flush()
      end
      if seen ~= 100 * value + 5050 then error("a mixed state") end
    end]],
  --- Nobody watches.
  pull = [[
    local treadle = ...
    local s = treadle.signal(0)
    local c = treadle.computed(function() return s:get() + 1 end)
    return function(n)
      local sum = 0
      for i = 1, n do
        s:set(i)
        sum = sum + c:get()
      end
      return sum
    end]],
  --- Nothing has changed.
  read = [[
    local treadle = ...
    local s = treadle.signal(1)
    local c = treadle.computed(function() return s:get() + 1 end)
    return function(n)
      local sum = 0
      for _ = 1, n do sum = sum + c:get() end
      return sum
    end]],
}

--- The measures. Interpreted ones are run where nothing is compiled.
return function(treadle)
  local measures = {}
  for name, text in pairs(TEXT) do
    for _, mode in ipairs { "on", "off" } do
      local fn = assert(loadstring(text, "=" .. name))(treadle)
      measures[#measures + 1] = {
        key = ("signals.%s.%s"):format(mode, name),
        fn = mode == "on" and fn or function(n)
          jit.off()
          jit.flush()
          fn(n)
          jit.on()
        end,
      }
    end
  end
  return measures
end
