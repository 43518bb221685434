--- Tasks that wait for, or hold, something shared until they are ended (ends_spec).
local stop_tasks = require "stop_tasks"
local treadle = require "treadle"

local M = {}

M.echo = stop_tasks.echo

--- kind -> what waits; it gets the thing and a value to send.
local WAITS = {
  mutex = function(m) return m:lock() end,
  read = function(l) return l:read_lock() end,
  write = function(l) return l:write_lock() end,
  semaphore = function(s) return s:acquire() end,
  event = function(e) return e:wait() end,
  barrier = function(b) return (b:wait()) end, -- any number
  recv = function(ch) return ch:recv() end,
  send = function(ch, value) return ch:send(value) end,
  select_recv = function(two) return treadle.select { { two[1], "recv" }, { two[2], "recv" } } end,
  select_send = function(two, value)
    return treadle.select { { two[1], "send", value }, { two[2], "send", value } }
  end,
  atomics = function(buf) return treadle.atomics.wait(buf, 0, 0) end,
}

--- kind -> how that is given back, if it can be.
local GIVES = { mutex = "unlock", read = "read_unlock", write = "write_unlock",
  semaphore = "release" }

--- Sets it in a turn of the loop: when the code that runs here has begun to wait.
local function tell_when_waiting(entered)
  treadle.spawn(function()
    treadle.sleep(0)
    entered:set()
  end)
end

local function give_back(kind, thing, ...)
  if GIVES[kind] then
    thing[GIVES[kind]](thing)
  end
  return ...
end

--- Waits, and gives back what it got: the outcome.
function M.wait(kind, thing, entered, value)
  tell_when_waiting(entered)
  return give_back(kind, thing, WAITS[kind](thing, value))
end

--- Leaves a coroutine behind that waits.
function M.wait_behind(kind, thing, entered, value)
  treadle.spawn(M.wait, kind, thing, entered, value)
  treadle.sleep(0)
end

-- --- holders -------------------------------------------------------------------------------------

local function take(kind, thing, entered)
  WAITS[kind](thing)
  entered:set()
end

function M.hold_idle(kind, thing, entered)
  take(kind, thing, entered)
  treadle.sleep(1000)
end

function M.hold_in_coroutine(kind, thing, entered)
  treadle.spawn(M.hold_idle, kind, thing, entered):await()
end

function M.hold_behind(kind, thing, entered)
  treadle.spawn(M.hold_idle, kind, thing, entered)
end

function M.hold_and_compute(kind, thing, entered)
  take(kind, thing, entered)
  local n = 0
  while true do
    n = n + 1
  end
end

function M.hold_and_catch(kind, thing, entered)
  take(kind, thing, entered)
  while true do
    pcall(function()
      while true do end
    end)
  end
end

function M.hold_and_raise(kind, thing, entered)
  take(kind, thing, entered)
  error("in the middle")
end

function M.hold_and_hog(kind, thing, entered, how)
  take(kind, thing, entered)
  stop_tasks.hog(how)
end

-- --- what else may run in the state --------------------------------------------------------------

--- Keeps the state's thread until the gate, so that nothing arrives there; then it returns, or ends
-- the state by asking for too much memory.
function M.keep(entered, gate, hogs)
  entered:set()
  while not gate:is_set() do end
  if hogs then
    stop_tasks.hog("string")
  end
end

function M.compute(entered)
  entered:set()
  while true do end
end

function M.stick(entered, size)
  entered:set()
  return stop_tasks.stuck(nil, size)
end

function M.hog()
  stop_tasks.hog("string")
end

return M
