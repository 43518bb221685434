--- A program of channels in one state for the test that runs out of memory: what was sent is
-- received once, and what could not be sent, or received, is where it was.
local treadle = require "treadle"
require "treadle.channel"

local M = {}

local LAST = 40
local sent, seen = {}, {}
for i = 1, LAST do
  sent[i], seen[i] = false, 0
end

local wide, tight
local refusal
local text = ("x"):rep(5000)

--- Each value is a number, a short or a long string, a table or a channel with the number in it.
local function value_of(i)
  local kind = i % 5
  if kind == 0 then
    local inner = treadle.channel(1)
    inner:send(i)
    return inner
  end
  return kind == 1 and i or kind == 2 and "n" .. i or kind == 3 and i .. text or { i, { n = i } }
end

local function number_of(value)
  local kind = type(value)
  if kind == "userdata" then
    return number_of((value:recv()))
  end
  return kind == "number" and value or kind == "table" and value[1]
    or tonumber(value:match("%d+"))
end

--- Once more if there was no memory: one request is refused in a run.
local function again(fn, ...)
  local ok, a, b, c = pcall(fn, ...)
  if not ok then
    assert(refusal and tostring(a):find("memory", 1, true), a)
    return fn(...)
  end
  return a, b, c
end

--- Values are made before: a number, once taken out of the channel in a table, is gone.
local values = {}

local function take(v)
  local i = again(number_of, v)
  seen[i] = seen[i] + 1
end

local function send_all(ch, first, last)
  for i = first, last do
    assert(again(ch.send, ch, values[i]))
    sent[i] = true
  end
end

--- `refuse` begins to count requests, one of which is refused if `is_refused`.
function M.run(refuse, is_refused)
  refusal = is_refused
  for i = 1, LAST do
    values[i] = value_of(i)
  end
  refuse()
  wide = again(treadle.channel, LAST)
  tight = again(treadle.channel, 0)
  send_all(wide, 1, 20)
  for i = 1, 10 do
    local v, ok
    if i % 2 == 0 then
      v, ok = again(wide.recv, wide)
    else
      v, ok = again(wide.try_recv, wide)
    end
    assert(ok)
    take(v)
  end
  for _ = 1, 5 do
    local index, v, ok = again(treadle.select, { { tight, "recv" }, { wide, "recv" } })
    assert(index == 2 and ok)
    take(v)
  end
  for i = 21, 25 do -- one of them sends what the other would have
    local index = again(treadle.select, { { tight, "send", values[i] },
      { wide, "send", values[i] } })
    assert(index == 2)
    sent[i] = true
  end
  -- waits: who receives is granted it, or it is still there
  for i = 26, LAST do
    local f = treadle.spawn(function()
      local v, ok = again(wide.recv, wide)
      assert(ok)
      take(v)
    end)
    send_all(wide, i, i)
    f:await()
  end
end

--- There is memory again.
function M.settle()
  if wide then
    repeat
      treadle.poll()
      local v, ok = wide:try_recv()
      if ok then
        take(v)
      end
    until not ok
  end
  for i = 1, LAST do
    -- a send may have done its work before it was refused something
    assert(seen[i] <= 1, i .. " was received twice")
    assert(seen[i] == 1 or not sent[i], i .. " was lost")
  end
end

return M
