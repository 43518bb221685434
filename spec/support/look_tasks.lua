--- Tasks to be looked at.
local ffi = require "ffi"
local treadle = require "treadle"
local stop_tasks = require "stop_tasks"
local sums = require "look_sums"

ffi.cdef "int poll(void *, unsigned long, int);"

local M = {}

for name, fn in pairs(stop_tasks) do
  M[name] = fn
end

function M.backtrace()
  return treadle.worker.pool:backtrace()
end

--- Stand still in C: what poll returns, below 0 when a signal has ended it.
function M.stand_still(log, milliseconds)
  stop_tasks.note(log)
  local result = ffi.C.poll(nil, 0, milliseconds)
  return result
end

--- Compute until the counter is no longer 0, then stand still in C.
function M.compute_and_stand(go, log, milliseconds)
  while go:get() == 0 do end
  return (M.stand_still(log, milliseconds))
end

--- One of the computations.
function M.sum(name, n)
  return sums[name](n)
end

return M
