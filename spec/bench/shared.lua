--- Looks into a shared table beside the same looks into a plain one with the same in it, compiled
-- and not. Keys: "shared.on.element" and "plain.on.element".
-- @module shared
local COUNT = 100

--- The body of each loop over `t`; it counts for so many looks.
local LOOPS = {
  element = { COUNT, "for i = 1, 100 do sum = sum + t.list[i] end" },
  field = { 2 * COUNT, "for i = 1, 100 do local r = t.records[i] sum = sum + r.x end" },
  key = { COUNT, "for i = 1, 100 do sum = sum + t.map[keys[i]] end" },
  missing = { COUNT, "for i = 1, 100 do if not t.list[keys[i]] then sum = sum + 1 end end" },
  length = { COUNT, "for i = 1, 100 do sum = sum + #t.records[i].list end" },
  pairs = { COUNT, "for _, value in pairs(t.map) do sum = sum + value end" },
  ipairs = { COUNT, "for _, value in ipairs(t.list) do sum = sum + value end" },
  small = { 4, "for _, value in pairs(t.four) do sum = sum + value end" },
}

local TEXT = [[
local t, keys, pairs, ipairs = ...
return function(n)
  local sum = 0
  for _ = 1, n do BODY end
  return sum
end]]

local function compile(body, is_on, ...)
  local fn = assert(loadstring((TEXT:gsub("BODY", body)), "=look"))(...)
  if not is_on then
    jit.off(fn, true)
  end
  return fn
end

--- The measures of all loops; and of Lua's own pairs, which a state without shared tables has.
return function(treadle)
  local lua_pairs, lua_ipairs = pairs, ipairs
  local keys = {}
  local source = { list = {}, records = {}, map = {}, four = { 1, 2, a = 3, b = 4 } }
  for i = 1, COUNT do
    keys[i] = "key" .. i
    source.list[i], source.map[keys[i]] = i + 0.5, i + 0.5
    source.records[i] = { x = i + 0.5, y = i, name = keys[i], list = { i, i } }
  end
  local shared = treadle.shared(source)
  local measures = {}
  for name, loop in lua_pairs(LOOPS) do
    for mode, is_on in lua_pairs { on = true, off = false } do
      local function add(what, t, ...)
        measures[#measures + 1] = {
          key = ("%s.%s.%s"):format(what, mode, name), per = loop[1],
          fn = compile(loop[2], is_on, t, keys, ...),
        }
      end
      add("plain", source, lua_pairs, lua_ipairs)
      add("shared", shared, treadle.pairs, treadle.ipairs)
      add("treadle", source, treadle.pairs, treadle.ipairs)
    end
  end
  return measures
end
