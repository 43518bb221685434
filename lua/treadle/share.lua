--- What all shared objects have in common: handles, and waits.
-- @module treadle.share
local core = require "treadle.core"
local future = require "treadle.future"
local loop = require "treadle.loop"

local M = {}

--- Name the methods of a kind of handle.
-- @tparam string name of the kind, and of its module
-- @tparam table methods gets `close`, if it has none
-- @tparam[opt] table mt the metatable, with `__index` if it is not `methods`
function M.kind(name, methods, mt)
  mt = mt or {}
  mt.__index = mt.__index or methods
  mt.__name = "treadle." .. name
  mt.__metatable = mt.__name
  methods.close = methods.close or core.ref_close
  core.kind(name, mt)
end

--- Ends a wait that was made in C, if it has not ended by itself.
local function ended(f, number, ok, settled)
  if not (ok and settled) then
    core.wait_end(number)
  end
  if not ok then
    error(settled, 0)
  elseif settled then
    return future.results(f)
  end
end

local function wait_for(deadline, f, number)
  if not f then
    return true
  end
  return ended(f, number, pcall(loop.wait_for, f, deadline))
end

--- Wait until something shared grants what a function of C has asked it for: yields in a coroutine,
-- runs the loop in a main chunk.
-- @tparam[opt] number timeout seconds; nil or `math.huge`: no limit
-- @tparam function begin called with the other arguments, returns a future and its number, or
-- nothing if there is nothing to wait for
-- @return true if there was nothing to wait for; what was granted; nothing when the time was over
function M.wait(timeout, begin, ...)
  local deadline = timeout and timeout < math.huge and core.now() + timeout or nil
  return wait_for(deadline, begin(...))
end

return M
