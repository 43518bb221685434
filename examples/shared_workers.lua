--- Threads that keep their state, shared between queued functions: each is closed by whoever is the
-- last to need it, in a function, in a listener or in a later one.
--
--   treadle examples/shared_workers.lua [FIB PRIMES TRIBONACCI DIGITS]
--
-- What it shows: `treadle.thread`, and `treadle.queue` with its listeners: functions are added to
-- it while others run.
local treadle = require "treadle"

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path -- the workers take this path over

local USAGE = [[
usage: treadle shared_workers.lua [FIB PRIMES TRIBONACCI DIGITS]
  whole numbers: which Fibonacci number, up to where primes, which tribonacci number, how many
  digits of pi (42 17000000 32 25)
]]
local LIMITS = { 60, 1e8, 40, 30 }

--- As few digits as tell the number from its neighbours.
local function shortest(number)
  for digits = 14, 17 do
    local text = ("%%.%dg"):format(digits):format(number)
    if tonumber(text) == number then
      return text
    end
  end
end

--- A result in one word: of a list, how long it is.
local function word(value)
  return type(value) == "table" and tostring(#value) or shortest(value)
end

local function main(fib, primes, tribonacci, digits)
  local start = treadle.now()
  local fib_name, primes_name = ("fib(%d)"):format(fib), ("findPrimesUpTo(%d)"):format(primes)
  local tribonacci_name, pi_name = ("tribonacci(%d)"):format(tribonacci),
    ("estimatePi(%d)"):format(digits)

  local shared, kept = treadle.thread("math_worker"), treadle.thread("math_worker")
  local queue = treadle.queue()

  queue:race(function(value, entry)
    print(("Finished First: %s = %s\n"):format(entry.meta, word(value)))
  end):each(function(value, entry)
    print(entry.meta .. " " .. word(value))
    if entry.meta == primes_name then
      shared:terminate()
    end
  end):all_settled(function()
    print("\nDONE! " .. queue:status "completed")
    print(("\n\nScript runtime: %.3f sec"):format(treadle.now() - start))
  end)

  queue:add(function()
    local mine = treadle.thread("math_worker")
    local result = mine.call.fib(fib):await()
    mine:terminate()
    return result
  end, { meta = fib_name })

  queue:add(function() -- leaves the thread to the listener
    return shared.call.find_primes_up_to(primes):await()
  end, { meta = primes_name })

  queue:add(function()
    local mine = treadle.thread("math_worker")
    local result = mine.call.tribonacci(tribonacci):await()
    mine:terminate()
    return result
  end, { meta = tribonacci_name })

  queue:add(function()
    return kept.call.estimate_pi(digits):await() + kept.call.estimate_pi(digits):await()
  end, { meta = pi_name }):and_then(function(sum)
    queue:add(function()
      local third = kept.call.estimate_pi(digits):await()
      kept:terminate()
      return third + sum
    end, { meta = pi_name .. " #2" })
  end)

  queue:drained():await()
end

local sizes = { 42, 17000000, 32, 25 }
for i, argument in ipairs { ... } do
  local n = tonumber(argument)
  if not LIMITS[i] or not n or n % 1 ~= 0 or n < 1 or n > LIMITS[i] then
    io.stderr:write(("shared_workers: wrong argument '%s'\n"):format(argument), USAGE)
    os.exit(2)
  end
  sizes[i] = n
end
main(unpack(sizes))
