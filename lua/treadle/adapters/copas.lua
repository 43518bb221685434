--- Joins copas: a thread of copas's reads treadle's descriptor as if it were a socket, and reading
-- it is a turn. Works with the old copas (1.2), which has neither timers nor a way to wake a
-- thread, and with those that have (2.0 and later).
-- @module treadle.adapters.copas
local alarms = require "treadle.adapters.alarm"
local core = require "treadle.core"
local hosted = require "treadle.hosted"
local loop = require "treadle.loop"

local M = {}

local function nothing() end

--- Longer than anybody waits (s): copas ends when its threads sleep for ever.
local LONG = 1e8

--- How a thread waits where copas has timers.
local function parker_of(copas)
  local pause = copas.pause or copas.sleep
  return function(co)
    if copas.running == false then -- not in copas's loop
      return nil
    end
    return {
      park = function(seconds) pause(math.min(seconds, LONG)) end,
      wake = function() copas.wakeup(co) end,
    }
  end
end

--- The function of copas 1.2 that resumes a thread and sees where it waits next; the socket that it
-- has waited for is closed at its end.
local function find_tick(copas)
  for i = 1, 60 do
    local name, value = debug.getupvalue(copas.addthread, i)
    if name == "_doTick" then
      return value
    elseif not name then
      break
    end
  end
  return function(co) copas.addthread(co) end
end

--- How a thread of copas 1.2 waits: it yields a queue of ours in the place of copas's two. A
-- coroutine that was not resumed by copas has not been entered there: treadle resumes it.
local function old_parker_of(copas)
  local tick = find_tick(copas)
  return function(co)
    local is_parked, is_its, socket = false, false, nil
    local queue = { insert = nothing }
    function queue.push()
      is_its = true
      local name, value = debug.getlocal(2, 2) -- the caller's, _doTick(co, skt, ...)
      socket = name == "skt" and value or nil
    end
    local function wake()
      if is_parked then
        is_parked = false
        if is_its then
          tick(co, socket)
        else
          loop.resume(co)
        end
      end
    end
    local function park(seconds)
      local timer = seconds < math.huge and core.timer(seconds)
      if timer then
        loop.add_waiter(timer, wake)
      end
      is_parked, is_its = true, false
      coroutine.yield(queue, queue)
      if timer then
        core.timer_stop(timer)
      end
    end
    return { park = park, wake = wake }
  end
end

--- Raise an error in the code that goes on when this coroutine has yielded or ended: copas, which
-- would only print one of its thread's.
local function raise_outside(err)
  local co = coroutine.running()
  debug.sethook(function()
    if coroutine.running() ~= co then
      debug.sethook()
      error(err, 0)
    end
  end, "cr", 1)
end

function M.new(copas)
  copas = copas or require "copas"
  local has_timers = copas.wakeup ~= nil
  local adapter = { name = "copas" }
  local alarm, turn

  --- What copas takes for a socket. While it is `dirty` it is read at once.
  local source = { settimeout = nothing, close = nothing }
  local is_open, is_read, is_fresh = false, false, false

  function source.getfd()
    return alarm.fd
  end

  function source.dirty()
    return not is_open
  end

  function source.receive()
    if not is_open then
      return nil, "closed"
    elseif is_fresh then
      is_fresh = false
    else
      alarm:set(turn())
    end
    if not is_open then
      return nil, "closed"
    end
    return nil, "timeout"
  end

  local read

  local function open()
    is_open = true
    if not is_read then
      is_read, is_fresh = true, true
      copas.addthread(read)
    end
  end

  --- An error is Ctrl-C's: it ends copas's loop, which may be run again.
  function read()
    local ok, err = pcall(copas.receive, source)
    is_read = false
    if not turn then
      alarm:close()
    elseif not ok then
      open()
    end
    if not ok then
      raise_outside(err)
    end
  end

  function adapter.watch(fd, fn)
    alarm, turn = alarms.new(fd), fn
    open()
    return function()
      is_open, turn = false, nil
      if not is_read then
        alarm:close()
      end
    end
  end

  function adapter.rearm(seconds)
    alarm:set(seconds)
  end

  if has_timers then -- and a loop that ends when there is nothing to do
    function adapter.hold(is_held)
      if is_held then
        open()
      else
        is_open = false
      end
    end
  end

  function adapter.block(is_done, seconds)
    if hosted.in_turn() or copas.running then
      error("copas: cannot wait in a callback; do it in a coroutine (treadle.spawn)", 0)
    end
    local deadline = core.now() + seconds
    while not is_done() do
      local left = deadline - core.now()
      if left <= 0 then
        break
      end
      copas.step(left < math.huge and left or nil)
    end
  end

  adapter.parker = has_timers and parker_of(copas) or old_parker_of(copas)

  return adapter
end

return M
