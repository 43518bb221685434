--- Tasks for the specs of shared objects.
local treadle = require "treadle"

local M = {}

function M.echo(...)
  return ...
end

function M.wait_event(e, timeout)
  return e:wait(timeout)
end

function M.set_event(e, delay)
  treadle.sleep(delay or 0)
  e:set()
end

return M
