--- The tasks of the tests that run out of memory.
local treadle = require "treadle"

-- LuaJIT's recorder crashes where every block may be refused: it leaves the stack as it is when
-- memory runs out while it ends a trace at a call of C. Otherwise only blocks are refused that are
-- larger than any of the compiler's (src/run/heap.h).
if jit then
  jit.off()
end

local M = {}

local Point = { __index = {} }
treadle.class("oom.point", Point)

function M.add(a, b)
  return a + b
end

function M.echo(...)
  return ...
end

function M.fail()
  error("wrong")
end

function M.fail_with_table()
  error({ code = 7 })
end

function M.wait(seconds)
  treadle.sleep(seconds)
  return seconds
end

function M.point(x, y)
  return setmetatable({ x = x, y = y }, Point)
end

--- Looks at a shared table in every way.
function M.look(t)
  local count = 0
  for _ in treadle.pairs(t.large) do
    count = count + 1
  end
  for _, v in treadle.ipairs(t) do
    count = count + v
  end
  return t.f() + t.large[299] + #t + count, t.event
end

function M.wait_for(event)
  return event:wait()
end

--- Emits n values of several kinds.
function M.emit(n)
  for i = 1, n do
    treadle.emit(i % 3 == 0 and { i } or i % 3 == 1 and i or i .. ("x"):rep(200))
  end
  return n
end

function M.relay(n)
  for v in treadle.worker.pool.call.emit(n):stream() do
    treadle.emit(v)
  end
  return n
end

function M.fib(n)
  if n < 2 then
    return n
  end
  local call = treadle.worker.pool.call
  local a, b = call.fib(n - 1), call.fib(n - 2)
  return a:await() + b:await()
end

--- The number of every worker, asked for by one of them.
function M.workers()
  return unpack(treadle.worker.pool:broadcast("add", 40, 2):await())
end

--- Results that coroutines of the task's own have waited for.
function M.spawned(n)
  local list = {}
  for i = 1, n do
    list[i] = treadle.spawn(function()
      treadle.sleep(0)
      return i
    end)
  end
  local sum = 0
  for _, value in ipairs(treadle.all(list):await()) do
    sum = sum + value
  end
  return sum
end

return M
