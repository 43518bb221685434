--- Joins a program that runs luv's loop itself (`uv.run()`; luvit): treadle's descriptor is watched
-- in it, and what is due is run there. luv_loop.lua is the other way round: luv's loop in the waits
-- of a program that does not run it.
-- @module treadle.adapters.luv
local luv_loop = require "treadle.luv_loop"

local M = {}

--- @param uv the library; the one that `require "luv"` gives if it is nil
function M.new(uv)
  uv = uv or require "luv"
  local poll, timer, run

  --- For what is due at once there is the descriptor: libuv runs a timer that its callback starts
  -- with 0 again and again, and nothing else.
  local function set_timer(seconds)
    if seconds > 0 and seconds < math.huge then
      timer:start(math.ceil(seconds * 1000), 0, run)
    else
      timer:stop()
    end
  end

  local adapter = { name = "luv" }

  function adapter.watch(fd, turn)
    luv_loop.lend()
    poll, timer = uv.new_poll(fd), uv.new_timer()
    function run()
      set_timer(turn())
    end
    poll:start("r", run)
    poll:unref()
    timer:unref()
    return function()
      poll:close()
      timer:close()
      luv_loop.take_back()
    end
  end

  adapter.rearm = set_timer

  function adapter.hold(is_held)
    if is_held then
      poll:ref()
    else
      poll:unref()
    end
  end

  function adapter.block(is_done, seconds)
    luv_loop.run_until(is_done, seconds)
  end

  return adapter
end

return M
