--- Calls: what limits one, how it gets to C, and how it waits for its arguments.
-- @module treadle.submit
local core = require "treadle.core"
local errors = require "treadle.error"
local future = require "treadle.future"
local loop = require "treadle.loop"
local retry = require "treadle.retry"
local records = require "treadle.records"

local M = {}

--- The class of `pool.call`, by which `pool.call:NAME()` is known.
M.CALLS = "treadle.calls"

--- What is said of arguments that cannot travel, with the way out if it is a colon.
local function explained(message, name, first)
  local meta = type(first) == "table" and getmetatable(first)
  if type(meta) == "table" and rawget(meta, "__name") == M.CALLS then
    return ("%s: call it with a dot, call.%s(...)"):format(message, name)
  end
  return message
end

--- What limits one call: the call's own options, else the task's, else the pool's.
function M.policy_of(self, task, given)
  local own = self._record.options[task] or {}
  local timeout = given and given.timeout or own.timeout or self._timeout
  if not timeout then
    return nil
  elseif given and (given.timeout or given.default ~= nil or given.error ~= nil) then
    return {
      timeout = timeout,
      default = given.default, has_default = given.default ~= nil,
      error = given.error, has_error = given.error ~= nil,
    }
  end
  return own.timeout and own or { timeout = timeout }
end

--- @param place see `schedule.place`
-- @param signal ends the wait for room, if the call must wait for that
local function submit_once(self, task, place, policy, timeout, signal, ...)
  local record = self._record
  if record.schedule then
    local name = records.task_name(record, task)
    return record.schedule:call(self._handle, task, name, place, policy, timeout, signal, ...)
  end
  local f = core.submit(self._handle, task, place, timeout, ...)
  return policy and future.limit(f, policy) or f
end

function M.call(self, task, place, policy, retries, signal, ...)
  if not retries then
    return submit_once(self, task, place, policy, policy and policy.timeout or -1, signal, ...)
  end
  local deadline = policy and core.now() + policy.timeout
  return retry.call(retries, function(...)
    local left = deadline and math.max(0, deadline - core.now()) or -1
    return submit_once(self, task, place, policy, left, signal, ...)
  end, ...)
end

--- How often a call is made again when its worker dies, nil for never.
function M.retries_of(self, task, given)
  local own = self._record.options[task] or {}
  local retries = given and given.retries or own.retries
  return retries and retries > 0 and retries or nil
end

--- Calls whose arguments could not be encoded: with a future among them they wait for it, else they
-- are rejected.
function M.refused(handle, number, place, timeout, kind, message, n, ...)
  local record = records.by_handle[handle]
  local args = { ... }
  local waits = false
  for i = 1, n do
    waits = waits or future.is(args[i])
  end
  local target = future.new()
  future.stand_for(target, false)
  if not waits or kind == "closed" then
    if kind == "closed" and record and record.failure then
      kind, message = record.failure.kind, record.failure.message
    elseif kind == "closed" and record then
      message = record.reason or record.what == "thread" and "the thread is closed" or message
    elseif kind == "payload" and record then
      message = explained(message, records.task_name(record, number), args[1])
    end
    if record and record.say then
      record.say(handle, "payload", "refused: %s: %s", records.task_name(record, number), message)
    end
    target:_reject(errors.new(kind, message, { task = records.task_name(record, number) }))
    return target
  end
  local deadline = timeout >= 0 and core.now() + timeout or nil
  if record and record.held then
    record.held[target] = number -- until it is submitted or garbage
  end
  future.set_upstream(target, function() end) -- until there is a call
  loop.work(target, function()
    for i = 1, n do
      if future.is(args[i]) then
        local result = { args[i]:pawait() }
        if not result[1] then
          target:_reject(result[2])
          return
        end
        args[i] = result[2]
      end
    end
    if not future.is_pending(target) then
      return
    end
    if record and record.held then
      record.held[target] = nil
    end
    local left = deadline and math.max(0, deadline - core.now()) or -1
    local self = { _handle = handle, _record = record or {} }
    place = place == core.HOME and core.ANY or place -- there may be room now
    local f = submit_once(self, number, place, nil, left, nil, unpack(args, 1, n))
    future.set_upstream(target, function(reason) f:cancel(reason) end)
    future.stand_for(target, f)
    local function pass(ok, ...)
      if ok then
        return ...
      elseif errors.is((...)) and (...).kind == "timeout" then
        future.expire(target)
      else
        target:_reject((...))
      end
    end
    return pass(f:pawait())
  end)
  return target
end

return M
