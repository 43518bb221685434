--- Who listens to what happens in a pool. The workers tell it only while somebody does.
-- @module treadle.events
local core = require "treadle.core"
local errors = require "treadle.error"
local loop = require "treadle.loop"
local options = require "treadle.options"

local M = {}

local NAMES = {
  worker_start = true, worker_exit = true,
  job_start = true, job_done = true, job_error = true, queue_full = true,
}

--- Call `fn(event)` for every event of that name: a table with `event`, `worker`, and where it has
-- them `task`, `kind` (of a job's error), `reason` (of a worker's exit), `duration` (s).
-- @treturn function unsubscribes
function M.on(record, handle, name, fn)
  options.argument(1, "on", name, "string", 2)
  options.argument(2, "on", fn, "function", 2)
  if not NAMES[name] then
    options.bad_argument(1, "on", ("unknown event '%s', did you mean '%s'?"):format(name,
      options.nearest(name, NAMES)), 2)
  end
  local entry = { name = name, fn = fn }
  record.listeners[#record.listeners + 1] = entry
  core.pool_listen(handle, true)
  return function()
    for i, other in ipairs(record.listeners) do
      if other == entry then
        table.remove(record.listeners, i)
        break
      end
    end
    if #record.listeners == 0 then
      core.pool_listen(handle, false)
    end
  end
end

--- Tell those who listen. What they raise is theirs: it goes to stderr.
function M.emit(record, event)
  local told = {}
  for i, entry in ipairs(record.listeners) do
    told[i] = entry
  end
  for _, entry in ipairs(told) do
    if entry.name == event.event then
      loop.defer(function()
        local ok, err = pcall(entry.fn, event)
        if not ok then
          io.stderr:write(("treadle: error in a listener to '%s': %s\n"):format(event.event,
            errors.text(err)))
        end
      end)
    end
  end
end

--- What a worker has told.
function M.heard(record, worker, name, task, text, seconds)
  local is_job = name:match "^job_" ~= nil
  M.emit(record, {
    event = name,
    worker = worker,
    task = is_job and (task == 0 and "function" or record.names and record.names[task]) or nil,
    kind = is_job and text or nil,
    reason = not is_job and text or nil,
    duration = is_job and name ~= "job_start" and seconds or nil,
  })
end

return M
