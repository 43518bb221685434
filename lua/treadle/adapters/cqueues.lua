--- Joins controllers of cqueues: in each of them one coroutine, its pump, watches treadle's
-- descriptor and runs turns, as long as coroutines of that controller wait for treadle or treadle
-- has something to do. So a controller's loop ends when all is done.
-- @module treadle.adapters.cqueues
local core = require "treadle.core"

local M = {}

--- @param given a controller: the one that the main code's waits run, and in which treadle's own
-- coroutines go on while no other is known. Without it a new one.
function M.new(given)
  local cqueues, condition = require "cqueues", require "cqueues.condition"
  local main = type(given) == "userdata" and given or cqueues.new()
  local descriptor = { events = "r" }
  local turn, is_held

  --- controller -> its pump: `kick`, a condition, and how many coroutines it has `parked`
  local pumps = setmetatable({}, { __mode = "k" })

  local function run_turns(own)
    repeat
      local seconds = turn()
      if own.parked == 0 and not is_held then
        break
      elseif seconds < math.huge then
        cqueues.poll(descriptor, own.kick, seconds)
      else
        cqueues.poll(descriptor, own.kick)
      end
    until not turn
  end

  local pump

  local function pump_of(controller)
    local own = pumps[controller]
    if not own then
      own = { kick = condition.new(), parked = 0, runs = false }
      pumps[controller] = own
    end
    if not own.runs then
      own.runs = true
      controller:wrap(pump, own)
    end
    return own
  end

  --- An error is Ctrl-C's: it ends the controller's loop, which may be run again.
  function pump(own)
    local ok, err = pcall(run_turns, own)
    own.runs = false
    if not ok then
      if turn then
        pump_of(cqueues.running())
      end
      error(err, 0)
    end
  end

  local function kick_all()
    for _, own in pairs(pumps) do
      own.kick:signal()
    end
  end

  local adapter = { name = "cqueues", rearm = kick_all }

  function adapter.watch(fd, fn)
    descriptor.pollfd, turn = fd, fn
    return function()
      turn = nil
      kick_all()
      cqueues.cancel(fd)
    end
  end

  function adapter.hold(held)
    is_held = held
    if held then
      pump_of(cqueues.running() or main)
    else
      kick_all()
    end
  end

  function adapter.block(is_done, seconds)
    if cqueues.running() then
      error("cqueues: cannot wait in a callback; do it in a coroutine (treadle.spawn)", 0)
    end
    local deadline = core.now() + seconds
    while not is_done() do
      local left = deadline - core.now()
      if left <= 0 then
        break
      end
      pump_of(main)
      local ok, err = main:step(left < math.huge and left or nil)
      if not ok and err == "interrupted" then
        error(err, 0)
      elseif not ok then
        io.stderr:write("treadle: error in a coroutine of cqueues: ", tostring(err), "\n")
      end
    end
  end

  function adapter.parker()
    local controller, is_its = cqueues.running()
    if not is_its then
      return nil -- a coroutine that one of its made
    end
    local woken = condition.new()
    return {
      park = function(seconds)
        local own = pump_of(controller)
        own.parked = own.parked + 1
        if seconds < math.huge then
          cqueues.poll(woken, seconds)
        else
          cqueues.poll(woken)
        end
        own.parked = own.parked - 1
        if own.parked == 0 and not is_held then
          own.kick:signal()
        end
      end,
      wake = function() woken:signal() end,
    }
  end

  return adapter
end

return M
