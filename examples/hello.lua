--- Two calls of one task, at the same time on two cores: `treadle examples/hello.lua`
-- prints the sum of their results.
local treadle = require "treadle"
local tasks = {}

function tasks.fib(n)
  return n < 2 and n or tasks.fib(n - 1) + tasks.fib(n - 2)
end

if treadle.is_main then -- the workers run this file too, for the tasks it returns
  local pool = treadle.pool(tasks)
  local a, b = pool.call.fib(30), pool.call.fib(31) -- futures: both calls are under way
  print(a:await() + b:await()) --> 2178309
  pool:close()
end

return tasks
