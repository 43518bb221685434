--- The end of a host whose Lua state is never closed (an editor's): its pools get the time that the
-- end of a state gives them.
-- @module treadle.ending
local core = require "treadle.core"
local future = require "treadle.future"
local loop = require "treadle.loop"
local records = require "treadle.records"

local M = {}

--- Seconds for accepted calls to finish, and then for threads to end: as in src/bind/pools.c.
local DRAIN, STOP = core.CLOSE_DRAIN, core.CLOSE_STOP

local function is_open(record)
  return future.is_pending(record.closed)
end

--- Poll until every pool is over, at most `seconds`. The host's loop is not run: what it would
-- start could take longer than the pools may.
local function wait(list, seconds)
  local deadline = core.now() + seconds
  for _, pool in ipairs(list) do
    while is_open(pool.record) and core.now() < deadline do
      if loop.poll() == 0 then
        core.wait(math.max(0, deadline - core.now()))
      end
    end
  end
end

--- Finish what was accepted, terminate the rest: half a second at most.
function M.end_pools()
  local list = {}
  for record, handle in pairs(records.handle_of) do
    if is_open(record) then
      list[#list + 1] = { record = record, handle = handle }
    end
  end
  for _, pool in ipairs(list) do
    core.pool_close(pool.handle)
  end
  wait(list, DRAIN)
  for _, pool in ipairs(list) do
    if is_open(pool.record) then
      core.pool_terminate(pool.handle)
    end
  end
  wait(list, STOP)
end

return M
