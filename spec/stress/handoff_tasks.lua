--- The tasks of handoff_test.c and handoff_host.lua.
-- Each takes its caller's number, the call's number and a payload, and gives the last two back. A
-- worker takes one caller's calls in the order in which they were made.
local ffi = require "ffi"
local treadle = require "treadle"

ffi.cdef "void stress_meet(void *);"

local M = {}

--- caller -> the number of its call that started last in this worker
local started = {}

local function start(caller, number)
  local last = started[caller] or 0
  if number <= last then
    error(("caller %s: call %d starts after call %d"):format(caller, number, last), 0)
  end
  started[caller] = number
end

function M.echo(caller, number, payload)
  start(caller, number)
  return number, payload
end

function M.nap(caller, number, payload, seconds)
  start(caller, number)
  treadle.sleep(seconds)
  return number, payload
end

function M.fail(caller, number)
  start(caller, number)
  error("failed " .. number, 0)
end

--- Block the thread until as many others have come as the host waits for.
function M.meet(caller, number, payload, address)
  start(caller, number)
  ffi.C.stress_meet(ffi.cast("void *", address))
  return number, payload
end

--- Calls that this worker has made.
local made = 0

--- Call `count` times through the worker's own pool.
function M.nest(caller, number, payload, count)
  start(caller, number)
  local worker, list = treadle.worker, {}
  for i = 1, count do
    made = made + 1
    list[i] = { made, worker.pool.call.echo(worker.id, made, payload .. made) }
  end
  local failure
  for i = 1, count do
    local call, future = unpack(list[i])
    local ok, got, text = future:pawait()
    if not ok then
      failure = failure or got
    elseif got ~= call or text ~= payload .. call then
      error(("call %d of worker %d got the answer of call %s"):format(call, worker.id,
        tostring(got)), 0)
    end
  end
  if failure then
    error(failure, 0)
  end
  return number, payload, count
end

--- Close or terminate the worker's own pool.
function M.shut(caller, number, payload, how)
  start(caller, number)
  local pool = treadle.worker.pool
  pool[how](pool)
  return number, payload
end

return M
