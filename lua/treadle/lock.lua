--- What mutexes, locks for readers and writers, and semaphores have in common: taking units of
-- them, waiting for units, giving them back (src/share/lock.h).
--
-- What is free is taken by the FFI, and given back so, in a form that the JIT compiler compiles.
-- All else goes by functions of C's Lua API. The owner of what is taken is known to the scheduler.
-- @module treadle.lock
local core = require "treadle.core"
local loop = require "treadle.loop"
local options = require "treadle.options"
local share = require "treadle.share"

local has_ffi, ffi = pcall(require, "ffi")

local M = {}

--- Units that a lock has at most.
local address, declaration
address, declaration, M.MOST = core.locks()
loop.track_owners(core.owner, core.owner_ended)

if has_ffi and jit and jit.status() then
  local face = ffi.cast(declaration .. "*", address)
  --- `take(face, handle, owner, units)`: 1 when it is done, 0 when it needs more.
  M.face, M.take, M.give = face, face.take, face.give
else -- to an interpreter the FFI is slower than the other way
  local function neither() return 0 end
  M.take, M.give = neither, neither
end

local HELD = {
  mutex = "the mutex is locked here already: to wait for it would have no end",
  rwlock = "the rwlock is locked here already: to wait for it would have no end",
  semaphore = "all of the semaphore is taken here already: to wait for it would have no end",
}

local kind_methods = {}

--- The functions of one kind: what is called when it is not done at once. Methods of handles call
-- `wait` and `try` as their last act, and `give` not so: for the level of errors.
-- @tparam string name "mutex", "rwlock" or "semaphore"
-- @tparam table methods of the handles; gets `close`
function M.kind(name, methods)
  local kind = setmetatable({
    name = name, type = "treadle." .. name, c = core.lock_functions(name),
  }, { __index = kind_methods })
  function methods.close(self)
    local ok, problem = kind.c.close(self)
    if problem == "held" then
      error(("the %s is held in this state: give it back before you close it"):format(name), 2)
    elseif not ok then
      share.check(self, name, "close")
    end
  end
  share.kind(name, methods)
  kind.new = kind.c.new
  return kind
end

--- Raise what is wrong with a call.
function kind_methods:misused(handle, name, problem, level)
  if problem == "held" then
    error(HELD[self.name], level)
  end
  share.check(handle, self.name, name, level - 1)
end

--- Take units, wait for them if need be.
-- @return true, and "abandoned" if a holder died; false when the time is over
function kind_methods:wait(handle, name, units, timeout, level)
  local owner = loop.owner()
  local ok, more = self.c.take(handle, owner, units)
  if ok == nil then
    self:misused(handle, name, more, level or 3)
  elseif not ok then
    ok, more = share.wait(timeout, self.c.wait, handle, owner, units)
  end
  if more then
    return ok, more
  end
  return ok or false
end

--- Take units that are free.
function kind_methods:try(handle, name, units)
  local ok, more = self.c.take(handle, loop.owner(), units, true)
  if ok == nil then
    self:misused(handle, name, more, 3)
  elseif more then
    return ok, more
  end
  return ok
end

--- Give units back.
function kind_methods:give(handle, name, units)
  local ok, problem = self.c.give(handle, loop.owner(), units)
  if ok == nil then
    self:misused(handle, name, problem, 4)
  elseif not ok then
    error(("%s: the %s is not held here"):format(name, self.name), 3)
  end
end

local function after(kind, handle, name, units, ok, ...)
  if M.give(M.face, handle, loop.owner(), units) == 0 then
    kind:give(handle, name, units)
  end
  if not ok then
    error((...), 0)
  end
  return ...
end

--- Call `fn(...)` while units are held; after the arguments "abandoned", if a holder died.
function kind_methods:with(handle, name, units, fn, ...)
  if type(fn) ~= "function" then
    if getmetatable(handle) ~= self.type then
      options.misused(name, self.name, handle)
    end
    options.argument(1, name, fn, "function")
  end
  local told
  if getmetatable(handle) ~= self.type or M.take(M.face, handle, loop.owner(), units) == 0 then
    local _
    _, told = self:wait(handle, name, units, nil, 4)
  end
  if told then
    local n, arguments = select("#", ...), { ... }
    arguments[n + 1] = told
    return after(self, handle, name, units, pcall(fn, unpack(arguments, 1, n + 1)))
  end
  return after(self, handle, name, units, pcall(fn, ...))
end

return M
