--- A program of coroutines for the test that runs out of memory: what waits goes on, or its future
-- is rejected. The main chunk waits deep in its stack, which has to grow there again and again.
local treadle = require "treadle"
local future = require "treadle.future"

local M = {}

local DEPTHS, STEP = 48, 3

local made, count = {}, 0
for i = 1, 8 * DEPTHS do
  made[i] = false -- to keep one needs no memory
end

local function keep(f)
  count = count + 1
  made[count] = f
  return f
end

local refusal

local function check_error(err)
  local text = tostring(err)
  if not (refusal and text:find("memory", 1, true)) then
    error("unexpected: " .. text, 0)
  end
end

local function expect(f, value)
  local ok, result = f:pawait()
  if not ok then
    check_error(result)
  elseif result ~= value then
    error("wrong result", 0)
  end
end

--- `fn(a, b)` with so many frames below it.
local function deep(n, fn, a, b)
  if n == 0 then
    fn(a, b)
  else
    deep(n - 1, fn, a, b)
  end
  return nil -- no tail call
end

local function attempt(fn, ...)
  local ok, err = pcall(fn, ...)
  if not ok then
    check_error(err)
  end
end

local function go_on(signal, value)
  signal:await()
  return value
end

--- One whose end is awaited by another one and by the main chunk.
local function two(n)
  local signal = keep(future.new())
  local inner = keep(treadle.spawn(go_on, signal, n))
  local outer = keep(treadle.spawn(function()
    return inner:await() + 1
  end))
  signal:_resolve()
  attempt(deep, n, expect, outer, n + 1)
  expect(inner, n)
end

--- Coroutines that are cancelled while they wait, alone and with what they have spawned.
local function cancelled(n)
  local never = keep(treadle.spawn(treadle.sleep, 1e6))
  local ended = false
  local outer = keep(treadle.spawn(function()
    local inner = keep(treadle.spawn(treadle.sleep, 1e6))
    pcall(inner.await, inner)
    ended = true
  end))
  never:cancel()
  outer:cancel()
  attempt(deep, n, treadle.poll, 0)
  if not (ended or refusal) then
    error("the wait has not ended", 0)
  end
end

function M.run(refuse, is_refused)
  refusal = is_refused
  refuse()
  for n = 1, DEPTHS, STEP do
    collectgarbage() -- the stack shrinks
    collectgarbage()
    attempt(two, n)
    attempt(cancelled, n)
  end
end

--- There is memory again: every future is settled.
function M.settle()
  for i = 1, count do
    made[i]:cancel()
    made[i]:wait()
    assert(made[i]:state() ~= "pending")
  end
  made, count, refusal = nil, 0, false
  local signal = future.new()
  local f = treadle.spawn(go_on, signal, 5)
  signal:_resolve()
  expect(f, 5)
end

return M
