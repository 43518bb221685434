--- A lock that one coroutine of all states holds at a time.
-- @classmod treadle.mutex
local lock = require "treadle.lock"
local loop = require "treadle.loop"
local options = require "treadle.options"

local face, take, give, owner = lock.face, lock.take, lock.give, loop.owner

local methods = {}
local kind = lock.kind("mutex", methods)
local NAME = "treadle.mutex" -- what getmetatable says

--- Take it; waits while another one has it. First come, first served.
-- @tparam[opt] number timeout seconds; without it there is no limit
-- @treturn boolean whether it was taken in time
-- @treturn ?string "abandoned" when the last holder ended without unlocking
function methods:lock(timeout)
  if timeout ~= nil then
    options.seconds(1, "lock", timeout)
  end
  if getmetatable(self) == NAME and take(face, self, owner(), 1) ~= 0 then
    return true
  end
  return kind:wait(self, "lock", 1, timeout)
end

--- Take it if it is free.
-- @treturn boolean whether it was taken
-- @treturn ?string "abandoned", as `lock`
function methods:try_lock()
  if getmetatable(self) == NAME and take(face, self, owner(), 1) ~= 0 then
    return true
  end
  return kind:try(self, "try_lock", 1)
end

--- Let it go.
-- @raise if the task, the spawned coroutine or the main chunk that runs here does not hold it
function methods:unlock()
  if getmetatable(self) == NAME and give(face, self, owner(), 1) ~= 0 then
    return
  end
  kind:give(self, "unlock", 1)
end

--- Call `fn(...)` while it is held; passes on results or error.
function methods:with(fn, ...)
  return kind:with(self, "with", 1, fn, ...)
end

return { new = function() return kind.new(1) end }
