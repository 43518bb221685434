--- The task of copas_server.lua and cqueues_server.lua, and one of luv_tasks.lua's: a computation
-- that keeps one core busy. Only the workers load this file.
local ffi = require "ffi"

local primes = {}

--- How many there are up to `n`.
function primes.count(n)
  local composite, count = ffi.new("bool[?]", n + 1), 0
  for i = 2, n do
    if not composite[i] then
      count = count + 1
      for multiple = i * i, n, i do
        composite[multiple] = true
      end
    end
  end
  return count
end

return primes
