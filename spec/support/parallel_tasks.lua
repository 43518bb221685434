--- Tasks for the specs of parallel loops.
local treadle = require "treadle"

local M = {}
local arrivals = 0

--- An object whose arrivals in this state are counted.
local Parcel = {}
Parcel.__index = Parcel
treadle.class("spec.Parcel", Parcel, function(parcel) return parcel.value end, function(value)
  arrivals = arrivals + 1
  return setmetatable({ value = value }, Parcel)
end)

function M.parcel(value)
  return setmetatable({ value = value }, Parcel)
end

function M.arrivals()
  return arrivals
end

function M.double(x)
  return 2 * x
end

function M.add(a, b)
  return a + b
end

M.slow = treadle.task {
  fn = function(x)
    if x == 3 then
      treadle.sleep(60)
    end
    return x
  end,
  timeout = 1, default = "late",
}

function M.idle()
  return true
end

function M.squares(n)
  local list = {}
  for i = 1, n do
    list[i] = i
  end
  return treadle.pmap(function(x)
    local worker = require("treadle").worker
    return x * x + worker.id * 0
  end, list):await()
end

--- A loop within each item of a loop.
function M.nested(n, depth)
  local rows = treadle.pmap(function(x)
    local t = require "treadle"
    if depth == 0 then
      return x
    end
    return t.worker.pool.call.nested(n, depth - 1):await()
  end, { 1, 2, 3 }):await()
  local sum = 0
  for _, v in ipairs(rows) do
    sum = sum + v
  end
  return sum
end

return M
