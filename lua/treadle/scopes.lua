--- What is cancelled together. A scope is that of a job, of a spawned coroutine, or of a group;
-- what code spawns belongs to the scope that it runs in. It is cancelled when it or one around it
-- has a `reason`.
--
-- Fields: `around`, the next larger scope; `reason`, why it was cancelled; `entry` and `serial`,
-- the job that it belongs to; `job`, the scope of that job; `is_group`; `begets`, whether
-- coroutines belong to it that only a search finds; `is_over`. A coroutine whose scope nobody has
-- asked for has none of its own: then that of its maker counts.
-- @module treadle.scopes
local core = require "treadle.core"
local coroutine = require "treadle.coroutines"
local errors = require "treadle.error"

local M = {}

--- Whether jobs run here: in a worker, and in a host that has run one.
local has_jobs = core.worker ~= nil

function M.expect_jobs()
  has_jobs = true
end

--- Whether any scope was cancelled yet.
local any = false

--- One is: from now on that is looked at.
function M.look()
  any = true
end

--- Serial number -> the scope of a job. Coroutines that it spawned may outlive the job, whose entry
-- is used again then; the serial number is not.
local jobs = setmetatable({}, { __mode = "v" })

--- coroutine -> the scope that it was spawned in.
local outer = setmetatable({}, { __mode = "k" })
M.outer = outer

--- coroutine -> its own scope, or that of the innermost group in it.
local own = setmetatable({}, { __mode = "k" })
M.own = own

local function new(around)
  while around and around.is_over and not around.reason do -- a chain of makers stays short
    around = around.around
  end
  if around then
    return {
      around = around, job = around.job, entry = around.entry, serial = around.serial,
    }
  end
  return {}
end

--- The scope of a job.
function M.of_job(entry, serial)
  local scope = jobs[serial]
  if not scope then
    scope = { entry = entry, serial = serial, reason = core.reason(entry) }
    scope.job = scope
    jobs[serial] = scope
  end
  return scope
end

--- The scope of a job, if something belongs to it.
function M.find_job(serial)
  return jobs[serial]
end

--- The coroutine's own scope, made if need be, or that of the innermost group in it.
local function own_of(co)
  local scope = own[co]
  if not scope then
    scope = new(outer[co])
    own[co] = scope
  end
  return scope
end

--- The scope of the job whose code runs here, or has left this coroutine behind.
function M.job_here()
  local entry, serial = core.scope()
  if entry then
    return M.of_job(entry, serial)
  end
  local co = coroutine.running()
  local scope = co and (own[co] or outer[co])
  return scope and scope.job
end

--- The scope of what the code that runs here spawns.
-- @param co its coroutine, nil in a main chunk
-- @tparam boolean is_spawned whether that was spawned
function M.here(co, is_spawned)
  if is_spawned or co and (own[co] or outer[co]) then
    return own_of(co)
  end
  return has_jobs and M.job_here() or nil
end

--- Why the code of a coroutine is cancelled, nil if it is not.
local function reason_of(co)
  local scope = own[co] or outer[co]
  while scope do
    if scope.reason then
      return scope.reason
    end
    scope = scope.around
  end
end
M.reason = reason_of

--- Why the code that runs here was given up, nil if it was not.
-- @param runs the coroutine that the scheduler has resumed: the code may be in one of the script's
local function reason_here(runs)
  if has_jobs then
    local job = core.entry()
    local reason = job > 0 and core.cancelled(job) and core.reason(job)
    if reason then
      return reason
    end
  end
  if any then
    local co = coroutine.running()
    return co and reason_of(co) or runs and runs ~= co and reason_of(runs) or nil
  end
end
M.reason_here = reason_here

--- Raise if it was.
-- @param[opt] future what the code would wait for, or has waited for
function M.check(runs, future)
  if has_jobs or any then
    local reason = reason_here(runs)
    if reason then
      if future then
        require("treadle.cancel").abandon(future, reason, runs)
      end
      error(errors.new("cancelled", reason), 0)
    end
  end
end

--- Let a coroutine belong to a scope, if there is one.
function M.join(co, scope)
  if scope then
    scope.begets = true
    outer[co] = scope
    any = any or scope.reason ~= nil
  end
end

--- Cancel a spawned coroutine: the first reason counts.
-- @treturn boolean whether it has coroutines that a search must find
function M.cancel(co, reason)
  local scope, begets = own_of(co), false
  while scope.is_group do
    begets = begets or scope.begets
    scope = scope.around
  end
  scope.reason = scope.reason or reason
  return begets or scope.begets
end

--- The coroutine has ended: it cannot be cancelled any more. Needs no memory: a table would need
-- some to lose a key that it has not.
function M.leave(co)
  local scope = own[co]
  if scope then
    scope.is_over = true
    own[co] = nil
  end
  if outer[co] then
    outer[co] = nil
  end
end

--- Open a group in the code of a coroutine.
-- @param around the scope that it is in
function M.open_group(co, around)
  local scope = new(around)
  scope.is_group, scope.before = true, own[co] or false
  own[co] = scope
  return scope
end

--- It closes: what the coroutine spawns from now on does not belong to it.
function M.close_group(co, scope)
  own[co] = scope.before or nil
  scope.is_over, scope.before = true, nil
end

return M
