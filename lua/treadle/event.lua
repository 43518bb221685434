--- A flag that all states share, and may wait for.
-- @classmod treadle.event
local core = require "treadle.core"
local options = require "treadle.options"
local share = require "treadle.share"

local methods = {}

share.kind("event", methods)

--- Set it: all who wait go on, and all who come, until it is reset.
methods.set = core.event_set

--- Take that back.
methods.reset = core.event_reset

--- @treturn boolean whether it is set
methods.is_set = core.event_is_set

--- Wait until it is set: yields in a coroutine, runs the loop in a main chunk.
-- @tparam[opt] number timeout seconds; without it there is no limit
-- @treturn boolean whether it was set in time
function methods:wait(timeout)
  share.check(self, "event", "wait")
  if timeout ~= nil then
    options.seconds(1, "wait", timeout)
  end
  return share.wait(timeout, core.event_wait, self) or false
end

return { new = core.event_new }
