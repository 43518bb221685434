--- Threads whose state is carried from one queued function to the next, and a queue that is added
-- to after it was empty.
--
--   treadle examples/chaining.lua [FIB [SECONDS]]
--
-- What it shows: one call after the other on one thread, `queue:status` while functions run, a
-- function that follows another on the same thread, and one that comes late.
local treadle = require "treadle"

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path -- the workers take this path over

local USAGE = [=[
usage: treadle chaining.lua [FIB [SECONDS]]
  FIB: which Fibonacci number the first one computes, from 4 (42); SECONDS until the last one is
  added, which waits as long again (2)
]=]

local function say(...)
  print(table.concat({ ... }, " "))
end

--- As a percentage is read: with three decimals, if it needs them.
local function rounded(number)
  return tostring(math.floor(number * 1000 + 0.5) / 1000)
end

local function main(fib, seconds)
  local start = treadle.now()
  local queue = treadle.queue { limit = 3 }

  queue:all_settled(function()
    for _, entry in ipairs(queue:status("completed", "raw")) do
      say(entry.value, "Success", entry.meta and ("{ meta: %d }"):format(entry.meta) or "undefined")
    end
    say("\nDONE!", queue:status "completed")
    say(("\n\nScript runtime: %.3f sec\n\n"):format(treadle.now() - start))
  end)

  --- Two additions and a Fibonacci number, and what the thread counts meanwhile.
  local function chain(name, thread, a, b, c, d, n)
    local call = thread.call
    say(("%s: getState(): "):format(name), call.state():await())
    say(("%s: add(%d, %d): "):format(name, a, b), call.add(a, b):await())
    say(("%s: getState(%d, %d): "):format(name, a, b), call.state():await())
    say(("%s: add(%d, %d): "):format(name, c, d), call.add(c, d):await())
    say(("%s: getState(%d, %d): "):format(name, c, d), call.state():await())
    say(("%s: fib(): "):format(name), call.fib(n):await())
  end

  local function finish(name)
    say(rounded(queue:status("completed", "percent")), "%")
    return ("Done %s!"):format(name)
  end

  say("Available Thread: ", queue:available() and "Yes" or "No")

  queue:add(function()
    local mine = treadle.thread("math_worker")
    chain("A", mine, 1, 2, 3, 4, fib)
    mine:terminate()
    return finish "A"
  end, { meta = 1 })

  local shared = treadle.thread("math_worker")
  queue:add(function()
    chain("B", shared, 5, 6, 7, 8, fib - 1)
    return finish "B"
  end):finally(function()
    queue:add(function() -- finds the state that B has left
      chain("B2", shared, 15, 16, 17, 18, fib - 3)
      shared:terminate()
      return finish "B2"
    end)
  end)

  queue:add(function()
    local mine = treadle.thread("math_worker")
    chain("C", mine, 9, 10, 11, 12, fib - 2)
    mine:terminate()
    return finish "C"
  end)

  say("Available Thread: ", queue:available() and "Yes" or "No")

  treadle.sleep(seconds)
  queue:add(function()
    treadle.sleep(seconds)
    local mine = treadle.thread("math_worker")
    chain("C2", mine, 19, 110, 111, 112, fib - 2)
    mine:terminate()
    return finish "C2"
  end)
  queue:drained():await()
end

local fib, seconds = ...
fib, seconds = tonumber(fib or 42), tonumber(seconds or 2)
if not fib or fib % 1 ~= 0 or fib < 4 or fib > 60 or not seconds or seconds < 0
  or select("#", ...) > 2 then
  io.stderr:write("chaining: wrong arguments\n", USAGE)
  os.exit(2)
end
main(fib, seconds)
