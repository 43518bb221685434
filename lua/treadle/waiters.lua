--- Who waits for a future: a coroutine to resume, a function to call with the future, a collector,
-- or several of them in a list. A collector is a table `{ n, done = fn, failed = fn }` that waits
-- for n futures: each that resolves counts it down (C does, too) and the last one calls `done()`;
-- each that is rejected calls `failed(future)`.
-- @module treadle.waiters
local core = require "treadle.core"

local WAITER = core.WAITER

local M = {}

local function is_collector(waiter)
  return type(waiter) == "table" and type(waiter[1]) == "number"
end
M.is_collector = is_collector

--- Count a collector down for a resolved future; whether that was the last one.
function M.count_down(collector)
  local left = collector[1] - 1
  collector[1] = left
  return left == 0
end

--- Name a waiter.
function M.add(future, waiter)
  local present = future[WAITER]
  if present == nil then
    future[WAITER] = waiter
  elseif type(present) == "table" and not is_collector(present) then
    present[#present + 1] = waiter
  else
    future[WAITER] = { present, waiter }
  end
end

--- Take it away.
function M.remove(future, waiter)
  local present = future[WAITER]
  if present == waiter then
    future[WAITER] = nil
  elseif type(present) == "table" then
    for i = #present, 1, -1 do
      if present[i] == waiter then
        table.remove(present, i)
      end
    end
  end
end

return M
