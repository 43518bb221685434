--- The quick way for calls and their results, where there is one: in a host whose code is compiled.
-- To an interpreter the FFI is slower than the other way, `core.caller` and `core.poll`.
-- @module treadle.direct
local core = require "treadle.core"

if core.direct and jit and jit.status() and pcall(require, "ffi") then
  return require "treadle.direct_ffi"
end

local M = {}

--- The function behind `pool.call.NAME`.
function M.caller(handle, task)
  return core.caller(handle, task)
end

--- Handle the results that have arrived: how many, and whether `core.poll` is to handle more.
function M.receive()
  return 0, true
end

--- Spin until something arrives, if that makes sense: whether it has.
function M.spin()
  return false
end

return M
