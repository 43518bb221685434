--- What C tells of pools: how calls ended that brought no results, and what became of the workers.
-- @module treadle.news
local core = require "treadle.core"
local errors = require "treadle.error"
local events = require "treadle.events"
local future = require "treadle.future"
local inline = require "treadle.inline"
local records = require "treadle.records"

local M = {}

local DEFAULT_MESSAGES = {
  crashed = "its worker's state was lost while it ran: stopped for another job, recycled, or stuck",
  cancelled = "the call was cancelled",
  closed = "the pool is closed",
  memory = "not enough memory for the call or its results",
  timeout = "the time for the call is over",
}

--- A job that came home without results.
function M.rejected(f, kind, worker, record, number, message, traceback, value)
  local fields = {
    worker = worker > 0 and worker or nil,
    task = records.task_name(record, number),
    traceback = traceback,
    value = value,
  }
  if kind == "timeout" and not message then -- else it is not the call's own
    return future.expire(f, fields)
  elseif kind == "closed" and record and record.failure then
    local failure = record.failure
    kind, message, traceback = failure.kind, failure.message, failure.traceback
    fields.traceback = traceback
  end
  if not message and kind == "memory" and record and record.max_memory then
    message = ("the worker's Lua heap exceeded max_memory (%d bytes)"):format(record.max_memory)
  end
  if not message and kind == "closed" and record then
    local handle = records.handle_of[record]
    local told, died_of
    if handle then
      told, died_of = core.pool_told(handle)
    end
    message = died_of and told or record.reason or told
      or record.what == "thread" and "the thread is closed" or nil
  end
  f:_reject(errors.new(kind, message or DEFAULT_MESSAGES[kind] or kind, fields))
  if kind == "timeout" then -- of the job that made the call: its caller hears of it
    future.seen(f)
  end
end

--- Without a text the worker had no memory to write one. Without a kind its module is to blame.
local function load_error(record, text, kind)
  if text == nil then
    return errors.new("memory", record.max_memory
      and ("a worker does not fit into max_memory (%d bytes)"):format(record.max_memory)
      or "not enough memory for a worker to start")
  end
  local message, traceback = text:match("^(.-)\n(stack traceback:.*)$")
  return errors.new(kind or "load", message or text, { traceback = traceback })
end

--- Whether the next time is to be told, too.
local function tell_drained(record, handle)
  local list = record.drained
  record.drained = {}
  for _, f in ipairs(list) do
    f:_resolve()
  end
  return handle ~= nil and events.drained(record, handle)
end

--- Calls that wait for their arguments will not be made any more.
local function refuse_held(record)
  local held = record.held
  record.held = {}
  for f, number in pairs(held) do
    M.rejected(f, "closed", 0, record, number)
  end
end

--- Nothing runs in the pool that anybody waits for.
function M.stop(record)
  if not future.is_pending(record.stopped) then
    return
  end
  record.stopped:_resolve()
  refuse_held(record)
  if record.schedule then
    record.schedule:close()
  end
  tell_drained(record, records.handle_of[record])
  if record.gauges then
    record.gauges:changed()
  end
end

--- The workers have come to rest once. What is under way now is the home's, or has just come.
local function calm(record, handle)
  local calls, settled, guests = core.pool_calls(handle)
  if guests > 0 then -- their end tells
    return
  end
  -- What is settled may have started to run since; the next time it has not, and never comes home:
  -- its worker is stuck and was replaced.
  local is_over = calls == 0 or calls == settled and record.settled == settled
  record.settled = not is_over and calls == settled and settled or nil
  if not is_over then
    core.pool_watch(handle, true)
  elseif not tell_drained(record, handle) then
    core.pool_watch(handle, false)
  end
end

--- What a task has to say.
-- @param name of the event; nil: the value cannot be read here, and is a text that says why
local function said(record, worker, value, name)
  if record.said then
    record.said(value, name)
  elseif name then
    events.emit(record, { event = name, worker = worker, value = value })
  else
    io.stderr:write(("treadle: a message of worker %d was lost: %s\n"):format(worker, value))
  end
end

function M.pool_event(record, event, worker, ...)
  local handle = records.handle_of[record]
  if event == "started" then
    if future.is_pending(record.started) then
      records.learn_tasks(record, ...)
      record.started:_resolve()
    end
  elseif event == "failed" then
    local failure = load_error(record, ...)
    failure.worker = worker
    if future.is_pending(record.started) then
      record.started:_reject(failure)
    else
      record.failure = failure
      if handle then
        core.pool_terminate(handle)
      end
      M.stop(record)
    end
  elseif event == "cut_off" and future.is_pending(record.started) then
    record.started:_reject(errors.new("closed", DEFAULT_MESSAGES.closed, { worker = worker }))
  elseif event == "closed" then
    record.told, record.died_of = ...
    record.reason = record.died_of and record.told or record.reason or record.told
    M.stop(record)
    if record.say and handle then
      record.say(handle, "pool", "closed")
    end
    if record.trace then
      require("treadle.trace").finish(record)
    end
    record.closed:_resolve()
    inline.close(record)
  elseif event == "room" and handle and record.schedule then
    record.schedule:serve(handle)
  elseif event == "calm" and handle then
    calm(record, handle)
  elseif event == "settled" then
    inline.sweep()
  elseif event == "heard" then
    events.heard(record, worker, ...)
  elseif event == "said" then
    said(record, worker, ...)
  end
  for look in pairs(record.changing) do
    look()
  end
  if record.gauges then
    record.gauges:tell()
  end
end

--- A future that resolves when `is_done()`, which every news of a worker may change, or when the
-- pool has ended; for a task of the pool, which hears no news, at once.
function M.when_changed(self, is_done)
  local record, target = self._record, future.new()
  local function look()
    if self._is_own or not future.is_pending(record.stopped) or is_done() then
      if record.changing then
        record.changing[look] = nil
      end
      target:_resolve()
      return true
    end
  end
  if not look() then
    record.changing[look] = true
  end
  return target
end

return M
