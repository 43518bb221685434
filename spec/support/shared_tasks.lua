--- Tasks for the specs of shared tables.
local kept_pairs = pairs -- Lua's own: no shared table has come yet

local treadle = require "treadle"

local M = {}

function M.echo(...)
  return ...
end

--- The value at the end of a path of keys.
function M.at(t, ...)
  for i = 1, select("#", ...) do
    t = t[(select(i, ...))]
  end
  return t
end

function M.same(t, ...)
  return t == M.at(t, ...)
end

function M.contents(t)
  local list = {}
  for k, v in pairs(t) do list[k] = v end
  return list
end

function M.elements(t)
  local list = {}
  for i, v in ipairs(t) do list[i] = v end
  return list, #t
end

function M.kept(t)
  return pcall(kept_pairs, t)
end

function M.treadles(t)
  local count = 0
  for _ in treadle.pairs(t) do count = count + 1 end
  return count
end

function M.write(t, key, value)
  t[key] = value
end

local held

function M.hold(t)
  held = t
end

function M.held(...)
  return M.at(held, ...)
end

function M.heap(t)
  held = nil
  collectgarbage()
  collectgarbage()
  local before = collectgarbage "count"
  local first = t[1] -- at least one look
  collectgarbage()
  collectgarbage()
  return collectgarbage "count" - before, first
end

function M.spin(t)
  local sum = 0
  while true do
    for i = 1, #t do sum = sum + t[i] end
    if sum < 0 then return sum end
  end
end

return M
