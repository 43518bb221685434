--- How code waits in a state that was joined to somebody else's loop (attach.lua).
-- @module treadle.hosted
local core = require "treadle.core"
local coroutine = require "treadle.coroutines"
local loop = require "treadle.loop"

local STATE, PENDING = core.STATE, core.PENDING

local targets, fibers, waiting = loop.targets, loop.fibers, loop.waiting

local M = {}

--- A coroutine of the host's -> what ends its present wait, which it has on its stack.
local parked = setmetatable({}, { __mode = "kv" })

--- Not a closure of the coroutine that waits: nginx ends coroutines where they wait, and uses their
-- stacks for others, without closing what closures have there.
local function teller(wake)
  return function() wake() end
end

--- The way to wait of a coroutine that the host schedules.
local function park(co, parker, future, deadline, is_shielded)
  local tell = teller(parker.wake)
  while future[STATE] == PENDING do
    local left = deadline and deadline - core.now() or math.huge
    if left <= 0 then
      loop.poll()
      break
    end
    loop.add_waiter(future, tell)
    if not is_shielded then
      waiting[co], parked[co] = future, tell
    end
    local ok, err = pcall(parker.park, left)
    loop.remove_waiter(future, tell)
    waiting[co], parked[co] = nil, nil
    if not ok then
      loop.give_up(future)
      error(err, 0)
    elseif not is_shielded then
      loop.check_wait(future)
    end
  end
end

--- Also once the host is left: the coroutine is still its.
function loop.wake(co)
  local wake = parked[co]
  if wake then
    wake()
  end
  return wake ~= nil
end

--- How many turns the host runs, one within another.
local turns = 0

local function leave_turn(home, ...)
  loop.set_home(home)
  turns = turns - 1
  return ...
end

--- A turn that the host runs, perhaps in a coroutine of its own. Not a main chunk's: what it has
-- locked stays its own.
-- @tparam function handler of errors
-- @tparam[opt] number budget see `loop.poll`
-- @return whether no error came out of what it ran; events handled, or that error
function M.turn(handler, budget)
  turns = turns + 1
  return leave_turn(loop.set_home(coroutine.running()),
    loop.within(false, xpcall, loop.poll, handler, budget))
end

--- Whether the code that runs here is called by a turn of the host's, in no coroutine of ours.
function M.in_turn()
  return turns > 0 and loop.running() == nil
end

--- What the loop asks of a host, see `loop.set_host`: completes a table of the attached one's
-- `check_block`, `parker` and `is_its`, whether it schedules a coroutine.
function M.complete(host)
  --- Wait until a future is settled, or the deadline.
  function host.wait(co, future, deadline, is_shielded)
    local ok, parker = true, nil
    if not co then
      ok, parker = pcall(host.check_block, deadline)
    elseif not (targets[co] or fibers[co]) then
      ok, parker = pcall(host.parker, co)
    end
    if not ok then -- it is in a place that cannot
      loop.give_up(future)
      error(parker, 0)
    elseif parker then
      park(co, parker, future, deadline, is_shielded)
    elseif co then
      loop.suspend(co, future, deadline, is_shielded)
    else
      loop.drive(future, deadline)
    end
  end

  --- The coroutine that runs, if the host schedules it: the code that runs is its own, whoever may
  -- have run the host's loop.
  function host.own()
    local co = loop.running()
    if co and not (loop.is_spawned(co) or targets[co] or fibers[co]) and host.is_its(co) then
      return co
    end
  end

  return host
end

return M
