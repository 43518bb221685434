--- So many permits, of which coroutines of all states have one each, or more.
-- @classmod treadle.semaphore
local lock = require "treadle.lock"
local loop = require "treadle.loop"
local options = require "treadle.options"

local face, take, give, owner = lock.face, lock.take, lock.give, loop.owner

local methods = {}
local kind = lock.kind("semaphore", methods)
local NAME = "treadle.semaphore" -- what getmetatable says

--- Permits that one has at most.
local MOST = lock.MOST - 1

--- Take a permit; waits while there is none. First come, first served.
-- @tparam[opt] number timeout seconds; without it there is no limit
-- @treturn boolean whether it was taken in time
-- @treturn ?string "abandoned" when a holder of one ended without releasing it
function methods:acquire(timeout)
  if timeout ~= nil then
    options.seconds(1, "acquire", timeout)
  end
  if getmetatable(self) == NAME and take(face, self, owner(), 1) ~= 0 then
    return true
  end
  return kind:wait(self, "acquire", 1, timeout)
end

--- Take a permit if there is one.
function methods:try_acquire()
  if getmetatable(self) == NAME and take(face, self, owner(), 1) ~= 0 then
    return true
  end
  return kind:try(self, "try_acquire", 1)
end

--- Give a permit back.
-- @raise if the task, the spawned coroutine or the main chunk that runs here has none
function methods:release()
  if getmetatable(self) == NAME and give(face, self, owner(), 1) ~= 0 then
    return
  end
  kind:give(self, "release", 1)
end

--- Call `fn(...)` with a permit; passes on results or error.
function methods:with(fn, ...)
  return kind:with(self, "with", 1, fn, ...)
end

return {
  new = function(n)
    options.value(1, "semaphore", n, "count")
    if n > MOST then
      options.bad_argument(1, "semaphore", ("at most %d permits expected, got %d"):format(MOST, n))
    end
    return kind.new(n)
  end,
}
