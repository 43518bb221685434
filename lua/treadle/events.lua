--- Who listens to what happens in a pool. The workers tell it only while somebody does.
-- `record.listeners` are who listen; `record.submitted` is how many calls the pool had taken when
-- somebody who listens knew it empty last, nil if that was never so.
-- @module treadle.events
local core = require "treadle.core"
local listeners = require "treadle.listeners"
local loop = require "treadle.loop"
local options = require "treadle.options"

local M = {}

--- The events, and whether workers tell them.
local NAMES = {
  worker_start = true, worker_exit = true,
  job_start = true, job_done = true, job_error = true, queue_full = false, drain = false,
  message = true,
}

--- Whether somebody listens to an event, or, without a name, to what workers tell.
local function is_heard(record, name)
  for _, entry in ipairs(record.listeners) do
    if name and entry.name == name or not name and NAMES[entry.name] then
      return true
    end
  end
  return false
end

--- The first who wants to hear that the pool is empty: is it now?
local function watch(record, handle)
  local calls, _, guests = core.pool_calls(handle)
  local submitted, under_way = core.pool_counts(handle)
  record.submitted = calls + guests + under_way == 0 and submitted or nil
  core.pool_watch(handle, true)
end

--- Call `fn(event)` for every event of that name: a table with `event`, and where it has them
-- `worker`, `task`, `kind` (of a job's error), `reason` (of a worker's exit), `duration` (s),
-- `value` (of a message).
-- @treturn function unsubscribes
function M.on(record, handle, name, fn)
  options.argument(1, "on", name, "string", 2)
  options.argument(2, "on", fn, "function", 2)
  if NAMES[name] == nil then
    options.bad_argument(1, "on", ("unknown event '%s', did you mean '%s'?"):format(name,
      options.nearest(name, NAMES)), 2)
  end
  if name == "drain" and not is_heard(record, name) then
    watch(record, handle)
  end
  local function listen()
    core.pool_listen(handle, is_heard(record))
  end
  local unsubscribe = listeners.add(record.listeners, { name = name, fn = fn }, listen)
  listen()
  return unsubscribe
end

--- Tell those who listen. What they raise is theirs: it goes to stderr.
function M.emit(record, event)
  for _, entry in ipairs(listeners.copy(record.listeners, event.event)) do
    loop.defer(function()
      local ok, err = true, nil
      if not entry.gone then
        ok, err = pcall(entry.fn, event)
      end
      if not ok then
        listeners.complain(err, event.event)
      end
    end)
  end
end

--- The pool is empty: tell it, if calls have come since it was last.
-- @treturn boolean whether the next time is to be told, too
function M.drained(record, handle)
  if not is_heard(record, "drain") then
    return false
  end
  local submitted = core.pool_counts(handle)
  if submitted ~= record.submitted then
    record.submitted = submitted
    M.emit(record, { event = "drain" })
  end
  return true
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
