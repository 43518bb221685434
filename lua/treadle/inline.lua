--- Jobs that the host runs itself (guests): those of a pool with `inline`, while it awaits, and
-- calls that find no room in a pool with `on_full = "run"`.
-- Arguments and results go through the codec as they do to a worker and back, and C treats such a
-- job as one of a worker's: it is settled, timed out and cancelled like every other.
-- @module treadle.inline
local core = require "treadle.core"
local errors = require "treadle.error"
local loop = require "treadle.loop"
local tasks = require "treadle.task"

local M = {}

--- The number that stands for a function that travels with its call.
local SHIPPED = 0

--- guest -> whether its waits were told to end. Numbers are used again: the table stays small.
local guests = {}

--- Pools with `inline`: record -> handle.
local helping = setmetatable({}, { __mode = "kv" })

--- The tasks' functions in this state, by number.
local function load(source, names)
  local found = source.module and require(source.module) or source.tasks
  local fns = {}
  for number, name in ipairs(names) do
    local task = found[name]
    if tasks.is_import(task) then
      task = require(task.module)[task.name]
    end
    fns[number] = tasks.fn(task) or error(("the host finds no task '%s'"):format(name), 0)
  end
  return fns
end

local function describe(err)
  return { message = errors.text(err), traceback = debug.traceback("", 2):gsub("^\n", "") }
end

--- The same, kept in the pool's record; or nil and why not.
local function functions(record)
  if not record.functions then
    local ok, result = xpcall(load, describe, record.source, record.names)
    if not ok then
      return nil, result
    end
    record.functions = result
  end
  return record.functions
end

--- The function of a task in this state, for what runs it many times.
function M.task(record, name)
  local fns, problem = functions(record)
  return fns and fns[record.index[name]] or error(problem.message, 0)
end

local function begin(record, guest, task, ...)
  if task == nil then -- it was too late, or could not be decoded
    return
  elseif task == SHIPPED then
    return loop.run_job(guest, ...)
  end
  local fns, problem = functions(record)
  if fns then
    loop.run_job(guest, fns[task], ...)
  else
    core.job_fail(guest, "load", problem.message, problem.traceback)
  end
end

local function call(record, guest)
  begin(record, guest, core.guest_call(guest))
end

--- Run a guest up to its first wait.
function M.run(record, guest)
  loop.fail_job = loop.fail_job or require("treadle.worker").fail
  guests[guest] = false
  if not pcall(call, record, guest) then -- the job's own errors do not come here
    pcall(core.job_fail, guest, "memory")
  end
end

--- Take a queued job of one of the pools and run it; whether there was one.
local function help()
  for record, handle in pairs(helping) do
    local guest = core.guest_take(handle)
    if guest then
      M.run(record, guest)
      return true
    end
  end
  return false
end

--- From now on the host helps the workers of this pool.
function M.open(record, handle)
  helping[record] = handle
  loop.set_helper(help)
end

--- The pool is over.
function M.close(record)
  helping[record] = nil
  if next(helping) == nil then
    loop.set_helper(nil)
  end
end

--- End the waits of guests for whose results nobody waits any more.
function M.sweep()
  for guest, told in pairs(guests) do
    local reason, serial = core.reason(guest)
    if reason and not told then
      core.cancelled(guest) -- and so are the calls that it made
      guests[guest] = true
      require("treadle.cancel").job(guest, serial, reason)
    end
  end
end

return M
