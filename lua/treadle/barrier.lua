--- A place where so many coroutines of all states wait for each other, again and again.
-- @classmod treadle.barrier
local core = require "treadle.core"
local options = require "treadle.options"
local share = require "treadle.share"

local methods = {}

share.kind("barrier", methods)

--- Wait until all are there. Who gives up, because the time is over or its job is cancelled, is not
-- counted any more.
-- @tparam[opt] number timeout seconds; without it there is no limit
-- @treturn boolean whether all came in time
-- @treturn ?number which of them this one is, from 1: each number is given once
function methods:wait(timeout)
  share.check(self, "barrier", "wait")
  if timeout ~= nil then
    options.seconds(1, "wait", timeout)
  end
  local ok, number = share.wait(timeout, core.barrier_wait, self)
  if ok then
    return true, number
  end
  return false
end

return {
  new = function(n)
    options.value(1, "barrier", n, "count")
    return core.barrier_new(n)
  end,
}
