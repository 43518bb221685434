--- What a pool has counted and timed: the table that `pool:stats()` returns.
-- @module treadle.stats
local core = require "treadle.core"

local M = {}

--- What `tasks` calls a function that travelled with its call.
local SHIPPED = "function"

--- The tasks by name. Functions that travelled are there once one has run.
local function by_name(numbered, names)
  local tasks = {}
  for number, name in ipairs(names) do
    tasks[name] = numbered[number]
  end
  local shipped = numbered[0]
  if shipped and shipped.runs > 0 and not tasks[SHIPPED] then
    tasks[SHIPPED] = shipped
  end
  return tasks
end

--- What C tells of a pool, with the tasks by name.
-- @tparam table stats what `core.pool_stats` returned
-- @tparam table names the tasks' names, by number
-- @treturn table see docs/stats.md
function M.named(stats, names)
  stats.tasks = by_name(stats.tasks, names)
  return stats
end

--- A snapshot of the pool of a handle.
-- @param handle what `core.pool_open` returned
-- @tparam table names the tasks' names, by number
-- @treturn table see docs/stats.md
function M.read(handle, names)
  return M.named(core.pool_stats(handle), names)
end

return M
