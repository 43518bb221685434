--- A flag that all states share, and may wait for.
-- @classmod treadle.event
local core = require "treadle.core"
local options = require "treadle.options"
local share = require "treadle.share"

local methods = {}

share.kind("event", methods)

--- Set it: all who wait go on, and all who come, until it is reset.
function methods:set()
  share.check(self, "event", "set")
  core.event_set(self)
end

--- Take that back.
function methods:reset()
  share.check(self, "event", "reset")
  core.event_reset(self)
end

--- @treturn boolean whether it is set
function methods:is_set()
  share.check(self, "event", "is_set")
  return (core.event_is_set(self))
end

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
