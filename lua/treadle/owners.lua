--- Who may hold locks is known by a number: an owner. The main chunk and the coroutine of a job are
-- 0, which C tells apart (hold.h); a spawned coroutine gets a number of its own, an odd one (even
-- numbers are those of jobs), when somebody first asks for it.
-- @module treadle.owners
local M = {}

local last = 1
local numbers = setmetatable({}, { __mode = "k" }) -- spawned coroutine -> owner
local guards = setmetatable({}, { __mode = "k" }) -- the same -> what is collected with it

--- Tells C that an owner has ended, once there are locks in this state.
local ended

--- Set that function.
function M.track(fn)
  ended = fn
end

--- Whether a coroutine has a number.
function M.is_known(co)
  return numbers[co] ~= nil
end

--- The number of a coroutine.
function M.number(co)
  local number = numbers[co]
  if not number then
    number = last + 2
    last = number
    local guard = newproxy(true)
    getmetatable(guard).__gc = function() pcall(ended, number) end
    numbers[co], guards[co] = number, guard
  end
  return number
end

--- A coroutine has ended: what it holds is free.
function M.forget(co)
  local number = numbers[co]
  if number then
    getmetatable(guards[co]).__gc = nil
    numbers[co], guards[co] = nil, nil
    ended(number)
  end
end

return M
