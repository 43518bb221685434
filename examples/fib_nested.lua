--- Tasks that call their own pool: a recursive sum forks one half as a call and computes the other.
--
--   treadle examples/fib_nested.lua [N]
--
-- What it shows: `treadle.worker.pool`, and that waiting for a nested call never deadlocks: a task
-- that waits for its own pool lets the next job start, also where the pool has a single thread.
local treadle = require "treadle"

local CUTOFF = 26 -- below, a call costs more than the work it would give away

local function fib(n)
  return n < 2 and n or fib(n - 1) + fib(n - 2)
end

local tasks = {}

--- The n-th Fibonacci number, and how many calls it took.
function tasks.fib(n)
  if n < CUTOFF then
    return fib(n), 1
  end
  local forked = treadle.worker.pool.call.fib(n - 1)
  local b, b_calls = tasks.fib(n - 2)
  local a, a_calls = forked:await()
  return a + b, a_calls + b_calls
end

local function main(argument)
  local n = tonumber(argument or 40)
  if not n or n % 1 ~= 0 or n < 0 or n > 45 then
    io.stderr:write(("fib_nested: N has to be a whole number from 0 to 45, got '%s'\n"):format(
      argument))
    os.exit(2)
  end
  local start = treadle.now()
  local expected = fib(n)
  print(("sequential  fib(%d) = %d  %.3f s"):format(n, expected, treadle.now() - start))

  for _, threads in ipairs { 1, treadle.cores() } do
    treadle.using(treadle.pool(tasks, { threads = threads }), function(pool)
      start = treadle.now()
      local value, calls = pool.call.fib(n):await()
      print(("%d thread%s   fib(%d) = %d  %.3f s, cut into %d parts"):format(
        threads, threads == 1 and " " or "s", n, value, treadle.now() - start, calls))
      assert(value == expected, "wrong answer")
    end)
  end
end

if treadle.is_main then
  main(...)
end

return tasks
