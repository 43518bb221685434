--- Who waits for a future, and the list of futures whose waiters are to be run. When those run, the
-- scheduler says (loop.lua).
--
-- A waiter is a coroutine to resume, a function to call with the future, or a collector; several of
-- them are a list. A collector is a table `{ n, done = fn, failed = fn }` that waits for n futures:
-- each that resolves counts it down (C does, too) and the last one calls `done()`; each that is
-- rejected calls `failed(future)`.
-- @module treadle.waiters
local core = require "treadle.core"

local STATE, WAITER, NEXT, RESOLVED = core.STATE, core.WAITER, core.NEXT, core.RESOLVED

local M = {}

local function is_collector(waiter)
  return type(waiter) == "table" and type(waiter[1]) == "number"
end

--- Count a collector down for a resolved future; whether that was the last one.
local function count_down(collector)
  local left = collector[1] - 1
  collector[1] = left
  return left == 0
end

--- Name a waiter.
function M.add(future, waiter)
  local present = future[WAITER]
  if present == nil then
    future[WAITER] = waiter
  elseif type(present) == "table" and not is_collector(present) then
    present[#present + 1] = waiter
  else
    future[WAITER] = { present, waiter }
  end
end

--- Take it away.
function M.remove(future, waiter)
  local present = future[WAITER]
  if present == waiter then
    future[WAITER] = nil
  elseif type(present) == "table" then
    for i = #present, 1, -1 do
      if present[i] == waiter then
        table.remove(present, i)
      end
    end
  end
end

-- --- what is ready -------------------------------------------------------------------------------

--- Futures that are settled and have waiters, oldest first, linked by NEXT (true: the last one), so
-- that to enter one needs no memory. They are numbered from `first` to `last`.
local head, tail
local first, last = 1, 0

--- A finalizer may run wherever compiled code is left, and call into this module; no other one runs
-- within it. While the list is `busy`, it enters futures here: only a finalizer moves `late_last`,
-- only the others `late_first`.
local busy = false
local late, late_first, late_last = {}, 1, 0

--- The head of the list while its last waiter runs: nobody else waits to be run then, if it is the
-- only one.
local current

--- Enter a future.
local function enter(future)
  if future[NEXT] then -- it is there already
    return
  elseif busy then
    if late_first > late_last then
      late_first, late_last = 1, 0
    end
    late_last = late_last + 1
    late[late_last] = future
    return
  end
  busy = true
  if first <= last then
    tail[NEXT] = future
  else
    head = future
  end
  future[NEXT] = true
  tail = future
  last = last + 1
  busy = false
end
M.enter = enter

--- Says that something is ready, to who would not look: C in a worker, the host's loop.
local must_ring, ring = core.worker ~= nil, core.turn

--- Set what says it, for a state that was joined to somebody else's loop; nil: C is told.
function M.set_bell(fn)
  must_ring, ring = core.worker ~= nil or fn ~= nil, fn or core.turn
end

--- Enter a future that Lua has just settled, and that has waiters.
function M.tell(future)
  local waiter = future[WAITER]
  if future[STATE] == RESOLVED and is_collector(waiter) and not count_down(waiter) then
    return
  end
  enter(future)
  if must_ring then
    ring()
  end
end

--- Call `fn` at the next turn of the loop.
function M.defer(fn)
  local node = { RESOLVED, nil, nil, nil, nil, nil, false }
  node[WAITER] = fn
  enter(node)
  ring()
end

--- Nobody is in the midst of the list, whatever an error has left.
function M.calm()
  busy = false
end

function M.none_ready()
  return first > last and late_first > late_last
end

--- Whether nothing is ready but the code that runs.
function M.is_alone()
  return late_first > late_last and (first > last or first == last and head == current)
end

local function run_waiter(waiter, future, run_thread)
  local kind = type(waiter)
  if kind == "thread" then
    run_thread(waiter, future)
  elseif kind == "function" then
    waiter(future)
  elseif future[STATE] ~= RESOLVED then
    waiter.failed(future)
  elseif count_down(waiter) then
    waiter.done()
  end
end

--- Each waiter is taken away before it runs: after an error the next poll goes on with the others.
-- But a coroutine is not before it has run, and is not run twice: that error was none of its
-- code's, which has perhaps not been resumed for want of memory.
local function run_waiters(future, run_thread)
  local waiter = future[WAITER]
  current = nil
  if type(waiter) == "thread" then
    current = future
    run_thread(waiter, future)
    future[WAITER] = nil
    return
  elseif type(waiter) == "table" and not is_collector(waiter) then
    for i = 1, #waiter do
      local one = waiter[i]
      if one then
        if type(one) ~= "thread" then
          waiter[i] = false
        end
        current = i == #waiter and future or nil
        run_waiter(one, future, run_thread)
        waiter[i] = false
      end
    end
    future[WAITER] = nil
    return
  end
  future[WAITER] = nil
  current = future
  if is_collector(waiter) then
    if future[STATE] ~= RESOLVED then
      waiter.failed(future)
    else -- whoever made the future ready has counted
      waiter.done()
    end
  elseif waiter ~= nil then
    run_waiter(waiter, future, run_thread)
  end
end

--- Run the waiters of the futures that are in the list now.
-- @tparam function run_thread what runs a waiting coroutine: (co, future)
-- @tparam[opt] number limit a time after which it begins with no other future
-- @treturn number of how many futures; nil: a finalizer has called this in the midst of the list
function M.run(run_thread, limit)
  if busy then
    return nil
  end
  while late_first <= late_last do
    local future = late[late_first]
    late[late_first] = false
    late_first = late_first + 1
    enter(future)
  end
  local stop, events = last, 0
  while first <= stop do
    local future = head
    run_waiters(future, run_thread)
    busy = true
    if head == future then -- else a poll within has gone on
      head = future[NEXT]
      future[NEXT] = false
      first = first + 1
      events = events + 1
    end
    busy = false
    if limit and core.now() >= limit then
      break
    end
  end
  current = nil
  return events
end

return M
