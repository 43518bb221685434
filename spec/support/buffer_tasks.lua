--- Tasks for the specs of buffers, atomics and counters.
local treadle = require "treadle"

local M = {}

local kept = {}

function M.echo(...)
  return ...
end

--- Keeps a value in this state.
function M.keep(value)
  kept[1] = value
end

--- What was kept, given away.
function M.give()
  return treadle.move(kept[1])
end

--- Whether what was kept is still usable; else why not.
function M.fail_with_kept()
  error({ treadle.move(kept[1]) })
end

function M.look()
  return pcall(function() return #kept[1] end)
end

function M.get(buf, i)
  return buf:get(i)
end

function M.set(buf, i, v)
  buf:set(i, v)
end

function M.sum(buf)
  local p, s = buf.ptr, 0
  for i = 0, #buf - 1 do
    s = s + p[i]
  end
  return s
end

--- Holds its worker until it is let go.
function M.hold(started, ended)
  started:set()
  ended:wait()
end

--- Writes without end.
function M.spin(buf, started)
  local p = buf.ptr
  started:set()
  while true do
    p[0] = p[0] + 1
  end
end

function M.add(buf, i, n)
  for _ = 1, n do
    treadle.atomics.add(buf, i, 1)
  end
end

function M.count(counter, n)
  for _ = 1, n do
    counter:add()
  end
end

function M.wait(buf, i, expected, timeout)
  return treadle.atomics.wait(buf, i, expected, timeout)
end

--- Waits in several coroutines of one task.
function M.wait_all(buf, i, n)
  local list = {}
  for k = 1, n do
    list[k] = treadle.spawn(treadle.atomics.wait, buf, i, 0)
  end
  return treadle.all(list):await()
end

return M
