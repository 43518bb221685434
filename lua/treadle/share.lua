--- What all shared objects have in common: handles, and waits.
-- @module treadle.share
local core = require "treadle.core"
local loop = require "treadle.loop"
local options = require "treadle.options"

core.open "shared"

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
  methods.close = methods.close or function(self)
    if getmetatable(self) ~= mt.__name then
      options.misused("close", name, self)
    end
    core.ref_close(self)
  end
  core.kind(name, mt)
end

--- Check that a method was called on a live handle of its kind.
-- @tparam string kind
-- @tparam string name the method's
-- @param level as for `options.bad_argument`
function M.check(handle, kind, name, level)
  level = (level or 1) + 1
  local found, gone = core.ref_look(handle)
  if found ~= kind then
    options.misused(name, kind, handle, level)
  elseif gone then
    error(gone, level + 1)
  end
end

--- Goes on after a wait. What was granted at the last moment counts, though the time was over.
local function go_on(f, number, ok, settled)
  if ok and not settled then
    if core.wait_leave(number) then
      return
    end
    ok, settled = pcall(loop.wait_for, f) -- it is told any moment
  end
  if not ok then
    core.wait_end(number)
    error(settled, 0)
  end
  return core.wait_take(number)
end

--- Wait until a wait that a function of C has begun is granted: yields in a coroutine, runs the
-- loop in a main chunk.
-- @tparam[opt] number deadline a time of `core.now`
-- @param f its future
-- @param number its number
-- @return what was granted; nothing when the time was over
function M.finish(deadline, f, number)
  return go_on(f, number, pcall(loop.wait_for, f, deadline))
end

--- A time limit as a deadline; nil for none. (A null pointer equals nil, and is not false.)
function M.deadline(timeout)
  return timeout ~= nil and timeout < math.huge and core.now() + timeout or nil
end

local function wait_for(deadline, f, number)
  if not f then
    return true, number
  end
  return M.finish(deadline, f, number)
end

--- Wait until something shared grants what a function of C has asked it for: yields in a coroutine,
-- runs the loop in a main chunk.
-- @tparam[opt] number timeout seconds; nil or `math.huge`: no limit
-- @tparam function begin called with the other arguments, returns a future and its number, or nil
-- if there is nothing to wait for, and what it has to say of that
-- @return true if there was nothing to wait for, and what was said of that; what was granted;
-- nothing when the time was over
function M.wait(timeout, begin, ...)
  return wait_for(M.deadline(timeout), begin(...))
end

return M
