--- What the specs of threads run in one: calls, messages, and an end.
local treadle = require "treadle"

local M = {}

local data = treadle.worker and treadle.worker.data or {}
local calls, handled = 0, {}

function M.count()
  calls = calls + 1
  return calls
end

function M.echo(...)
  return ...
end

function M.fail(value)
  error(value)
end

--- Say that it is there, and wait or compute.
function M.wait(entered)
  entered:set()
  treadle.sleep(1000)
end

function M.spin(entered)
  entered:set()
  while true do end
end

--- In C, which no signal ends, until the gate, a file, is there.
function M.stuck(entered, gate)
  entered:set()
  os.execute(("while [ ! -e '%s' ]; do sleep 0.01; done"):format(gate))
end

function M.hog()
  local t = {}
  while true do
    t = { t, {} }
  end
end

--- One that must not run in another state than the first.
function M.mark(counter)
  counter:add()
  return calls
end

function M.hold(entered, go)
  entered:set()
  go:wait()
  return calls
end

function M.pass(n)
  for i = 1, n do
    treadle.parent:send(i)
  end
end

function M.receive(timeout)
  return treadle.parent:recv(timeout)
end

function M.drain()
  local list = {}
  while true do
    local value, ok = treadle.parent:recv()
    if not ok then
      return list
    end
    list[#list + 1] = value
  end
end

function M.send(value)
  treadle.parent:send(value)
end

--- What a send raises.
function M.try_send(value)
  local ok, err = pcall(treadle.parent.send, treadle.parent, value)
  return ok, type(err) == "table" and err.kind or err
end

function M.send_coroutine()
  treadle.parent:send(coroutine.create(print))
end

function M.nested()
  return treadle.worker.pool.call.count():await()
end

function M.renew(name, ...)
  treadle.worker.pool[name](treadle.worker.pool, ...)
end

function M.close_self()
  treadle.worker.pool:close()
  return "closing"
end

function M.terminate_self(reason)
  treadle.worker.pool:terminate(reason)
  treadle.sleep(1000)
end

--- A thread of a thread.
function M.inner()
  local inner = treadle.thread("thread_tasks", { data = { listens = true } })
  inner:send("x")
  local value = inner:recv()
  local count = inner.call.count():await()
  inner:close()
  return value, count, treadle.worker.name
end

function M.info()
  local w = treadle.worker
  return { id = w.id, name = w.name, unit = data.unit, parent = tostring(treadle.parent),
    pool = tostring(w.pool), main = treadle.is_main }
end

function M.handled()
  return handled
end

--- Listen from a call on.
function M.listen()
  treadle.parent:on("message", function(value)
    handled[#handled + 1] = value
  end)
end

local in_handler = false

if data.listens then
  treadle.parent:on("message", function(value)
    assert(not in_handler, "two handlers at once")
    in_handler = true
    if type(value) == "table" then
      if value.wait then
        value.entered:set()
        value.wait:wait()
      elseif value.spin then
        value.spin:set()
        while true do end
      elseif value.raise ~= nil then
        in_handler = false
        error(value.raise, 0)
      end
    elseif data.slow and value % 50 == 0 then
      treadle.sleep(0)
    end
    handled[#handled + 1] = value
    treadle.parent:send(value)
    in_handler = false
  end)
end

--- Whether `init` has run.
function M.prepare()
  calls = 100
end

function M.on_close()
  if data.closed then
    data.closed:add()
  end
  if data.closing == "raise" then
    error("no end")
  elseif data.closing == "wait" then
    treadle.sleep(0.01)
    treadle.parent:send { last = true, handled = #handled,
      count = treadle.worker.pool.call.count():await() }
  elseif data.closing == "spin" then
    data.entered:set()
    while true do end
  end
end

return M
