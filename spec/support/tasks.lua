--- The tasks of the specs.
local treadle = require "treadle"

local M = {}

local function append(path, text)
  local file = assert(io.open(path, "a"))
  file:write(text, "\n")
  file:close()
end

local function exists(path)
  local file = io.open(path)
  if file then
    file:close()
  end
  return file ~= nil
end

function M.add(a, b)
  return a + b
end

function M.echo(...)
  return ...
end

--- How many arguments came.
function M.count(...)
  return select("#", ...)
end

function M.id()
  return treadle.worker.id
end

function M.worker()
  local w = treadle.worker
  return w.id, w.name, w.data
end

function M.sleep(seconds)
  treadle.sleep(seconds)
  return seconds
end

function M.boom(...)
  error(...)
end

function M.note(path, text)
  append(path, text)
  return text
end

--- Say that it has started, and wait (yielding) until the gate, a file, is there.
function M.hold(gate, text)
  append(gate .. ".entered", text or "entered")
  while not exists(gate) do
    treadle.sleep(0.001)
  end
  return text
end

--- The same without yielding: the worker does nothing else meanwhile.
function M.block(gate, text)
  append(gate .. ".entered", text or "entered")
  while not exists(gate) do
    require("helpers").pause()
  end
  return text
end

--- Log the start, let others run, log the end.
function M.log_twice(path, text)
  append(path, "start " .. text)
  treadle.sleep(0)
  treadle.sleep(0.001)
  append(path, "end " .. text)
end

--- Wait until `n` jobs are in here at once.
function M.meet(path, n)
  append(path, "here")
  while true do
    local here = 0
    for _ in io.lines(path) do
      here = here + 1
    end
    if here >= n then
      return here
    end
    treadle.sleep(0.001)
  end
end

--- Wait for a long time; log what ended it and whether the job was cancelled then.
function M.until_cancelled(path, how)
  append(path, "started")
  local ok, err
  if how == "sleep" then
    ok, err = pcall(treadle.sleep, 1000)
  elseif how == "await" then
    local f = treadle.future()
    ok, err = pcall(f.await, f)
  else
    while not treadle.cancelled() do
      if how == "yield" then
        pcall(treadle.sleep, 0.001)
      else
        require("helpers").pause()
      end
    end
    ok, err = false, { kind = "seen" }
  end
  append(path, ("%s %s %s"):format(tostring(ok), tostring(err.kind), tostring(treadle.cancelled())))
end

function M.fib(n)
  if n < 2 then
    return n
  end
  local call = treadle.worker.pool.call
  local a, b = call.fib(n - 1), call.fib(n - 2)
  return a:await() + b:await()
end

function M.depth(n)
  return n == 0 and 0 or 1 + treadle.worker.pool.call.depth(n - 1):await()
end

function M.sum_all(n)
  local call, list = treadle.worker.pool.call, {}
  for i = 1, n do
    list[i] = call.add(i, 0)
  end
  local sum = 0
  for _, v in ipairs(treadle.all(list):await()) do
    sum = sum + v
  end
  return sum
end

local memo

--- Several jobs of one worker wait for the same call.
function M.memoised(n)
  memo = memo or treadle.worker.pool.call.fib(n)
  return memo:await()
end

function M.close_own_pool()
  treadle.worker.pool:close()
  return "closed"
end

function M.terminate_own_pool(reason)
  treadle.worker.pool:terminate(reason)
  treadle.sleep(1000)
end

function M.call_own(name, ...)
  return treadle.worker.pool.call[name](...):await()
end

--- Not a global of this module on purpose: the state's own.
function M.set_global(name, value)
  _G[name] = value
end

function M.get_global(name)
  return _G[name]
end

function M.random(n)
  local list = {}
  for i = 1, n do
    list[i] = math.random(1e9)
  end
  return list
end

M.wrapped = treadle.task { fn = M.add }
M.slow = treadle.task { fn = M.sleep, timeout = 0.05, default = "late" }
M.strict = treadle.task { fn = M.sleep, timeout = 0.05 }
M.named_error = treadle.task { fn = M.sleep, timeout = 0.05, error = "too slow" }
M.false_default = treadle.task { fn = M.sleep, timeout = 0.05, default = false }

return M
