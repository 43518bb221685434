--- A lock that many readers hold at a time, or one writer.
-- @classmod treadle.rwlock
local lock = require "treadle.lock"
local loop = require "treadle.loop"
local options = require "treadle.options"

local face, take, give, owner = lock.face, lock.take, lock.give, loop.owner

local methods = {}
local kind = lock.kind("rwlock", methods)
local NAME = "treadle.rwlock" -- what getmetatable says

--- Of so many units a reader has one, a writer all.
local ALL = lock.MOST

--- Take it for reading; waits while a writer has it, or waits for it and came earlier.
-- @tparam[opt] number timeout seconds; without it there is no limit
-- @treturn boolean whether it was taken in time
-- @treturn ?string "abandoned" when a writer ended without unlocking, until another one has had it
function methods:read_lock(timeout)
  if timeout ~= nil then
    options.seconds(1, "read_lock", timeout)
  end
  if getmetatable(self) == NAME and take(face, self, owner(), 1) ~= 0 then
    return true
  end
  return kind:wait(self, "read_lock", 1, timeout)
end

--- Take it for reading if that is free, and nobody waits.
function methods:read_try_lock()
  if getmetatable(self) == NAME and take(face, self, owner(), 1) ~= 0 then
    return true
  end
  return kind:try(self, "read_try_lock", 1)
end

--- Let it go, as a reader.
function methods:read_unlock()
  if getmetatable(self) == NAME and give(face, self, owner(), 1) ~= 0 then
    return
  end
  kind:give(self, "read_unlock", 1)
end

--- Call `fn(...)` while it is held for reading; passes on results or error.
function methods:read_with(fn, ...)
  return kind:with(self, "read_with", 1, fn, ...)
end

--- Take it for writing; waits while anybody has it.
-- @tparam[opt] number timeout seconds; without it there is no limit
-- @treturn boolean whether it was taken in time
-- @treturn ?string "abandoned" when the last writer, or a reader, ended without unlocking
function methods:write_lock(timeout)
  if timeout ~= nil then
    options.seconds(1, "write_lock", timeout)
  end
  if getmetatable(self) == NAME and take(face, self, owner(), ALL) ~= 0 then
    return true
  end
  return kind:wait(self, "write_lock", ALL, timeout)
end

--- Take it for writing if nobody has it.
function methods:write_try_lock()
  if getmetatable(self) == NAME and take(face, self, owner(), ALL) ~= 0 then
    return true
  end
  return kind:try(self, "write_try_lock", ALL)
end

--- Let it go, as a writer.
function methods:write_unlock()
  if getmetatable(self) == NAME and give(face, self, owner(), ALL) ~= 0 then
    return
  end
  kind:give(self, "write_unlock", ALL)
end

--- Call `fn(...)` while it is held for writing; passes on results or error.
function methods:write_with(fn, ...)
  return kind:with(self, "write_with", ALL, fn, ...)
end

return { new = function() return kind.new(ALL) end }
