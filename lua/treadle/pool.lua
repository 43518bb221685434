--- A pool of workers, as the state that uses it sees it.
-- @classmod treadle.pool
local core = require "treadle.core"
local abort = require "treadle.abort"
local combine = require "treadle.combine"
local direct = require "treadle.direct"
local errors = require "treadle.error"
local events = require "treadle.events"
local future = require "treadle.future"
local inline = require "treadle.inline"
local loop = require "treadle.loop"
local news = require "treadle.news"
local options = require "treadle.options"
local records = require "treadle.records"
local stats = require "treadle.stats"
local schedule = require "treadle.schedule"
local submit = require "treadle.submit"

local M = {}

local require, rawset = require, rawset -- the script may have its own

local methods = {}
local mt = { __name = "treadle.pool" }

core.hooks {
  refused = submit.refused,
  rejected = news.rejected,
  pool_event = news.pool_event,
}

local RUN_OPTIONS = {
  timeout = "seconds", default = "any", error = "any", worker = "count", retries = "tally",
  key = "key", priority = "priority",
  signal = abort.check, transfer = "list",
}

--- `pool.threads` is the present size, also after the pool has ended; `pool.signals` follow what it
-- does.
function mt:__index(key)
  if key == "signals" then
    if self._is_own then
      error("the signals of a pool are those of the state that made it, not of its tasks", 2)
    end
    local signals = require("treadle.gauge").signals(self._record)
    rawset(self, key, signals)
    return signals
  elseif key ~= "threads" then
    return methods[key]
  end
  local handle, record = rawget(self, "_handle"), rawget(self, "_record")
  record.threads = handle and core.pool_size(handle) or record.threads
  return record.threads
end

function mt:__newindex(key, value)
  if key == "threads" then
    error("pool.threads cannot be set: pool:resize(n) changes the size", 2)
  end
  rawset(self, key, value)
end

--- What messages call it.
local function label(self)
  return ("%s '%s'"):format(self._record.what or "pool", self.name)
end

function mt:__tostring()
  return ("%s (%d workers)"):format(label(self), self.threads)
end

--- A pool of one task can be called like the task.
function mt:__call(...)
  if not self._only then
    error(("pool '%s' has more than one task: use pool.call.NAME(...)"):format(self.name), 2)
  end
  return self.call[self._only](...)
end

--- Whether a value is a pool.
function M.is(value)
  return type(value) == "table" and getmetatable(value) == mt
end

local function check_self(self, name)
  if not M.is(self) then
    options.misused(name, "pool", self, 2)
  end
end

--- What only the process that made the pool can tell.
local function check_near(self, name)
  if self._is_own and core.pool_is_far(self._handle) then
    error(("'%s' of its own pool is not to be had in a worker with runtime = \"process\": "
      .. "the pool is in another process"):format(name), 3)
  end
end

--- A line of the option `debug`.
local function say(self, ...)
  if self._record.say then
    self._record.say(self._handle, ...)
  end
end

-- --- calls -------------------------------------------------------------------------------------

local function bound(signal, f)
  return signal and signal:bind(f) or f
end

--- The function behind `pool.call.NAME`.
local function make_caller(self, name)
  local task = self._record.index[name]
  if not task then
    local known = {}
    for i, other in ipairs(self._record.names) do
      known[i] = other
    end
    table.sort(known)
    error(("%s has no task '%s'; it has: %s"):format(label(self), tostring(name),
      #known > 0 and table.concat(known, ", ") or "none"), 3)
  end
  local policy, retries = submit.policy_of(self, task), submit.retries_of(self, task)
  local place = schedule.place(self._handle, {}, self._record.options[task])
  if not policy and not retries and place == core.ANY and not self._record.schedule then
    return direct.caller(self._handle, task, future.mt)
  end
  return function(...)
    return submit.call(self, task, place, policy, retries, nil, ...)
  end
end

local function call_proxy(self)
  return setmetatable({}, {
    __name = submit.CALLS,
    __index = function(proxy, name)
      local caller = make_caller(self, name)
      rawset(proxy, name, caller)
      return caller
    end,
  })
end

--- A pool's object. No task is called before `record` knows their names.
-- @tparam table fields what it has beside its record
function M.new(fields, record)
  record.stopped = future.new() -- terminated or closed: what is left ends soon, or never
  record.drained = {}
  record.held = setmetatable({}, { __mode = "k" }) -- futures of calls that wait for arguments
  fields._record = record
  fields.call = call_proxy(fields)
  return setmetatable(fields, mt)
end

--- In a worker: the pool that it belongs to.
function M.own(name, names, task_options, only, what)
  local handle = core.own_pool()
  local record = { what = what }
  local self = M.new({ name = name, _handle = handle, _is_own = true, _only = only }, record)
  records.learn_tasks(record, names, task_options)
  records.by_handle[handle] = record
  return self
end

local function task_number(self, name, task, level)
  if type(task) == "function" then
    return records.SHIPPED
  end
  options.argument(1, name, task, "string or function", level + 1)
  local number = self._record.index[task]
  if not number then
    local nearest = options.nearest(task, self._record.index)
    options.bad_argument(1, name, ("%s has no task '%s'%s"):format(label(self), task,
      nearest and (", did you mean '%s'?"):format(nearest) or ", and no other"), level + 1)
  end
  return number
end

--- How many arguments a list stands for, nil if they are not a number of arguments.
local function count_of(args)
  local n = args.n == nil and #args or args.n
  -- more than a few thousand do not fit on a stack: only then try
  if type(n) == "number" and n >= 0 and n == math.floor(n)
    and (n <= 1000 or n < 2 ^ 31 and pcall(unpack, args, 1, n)) then
    return n
  end
end

--- Call a task by name, or a function that travels with the call.
-- @tparam string|function task
-- @tparam[opt] table args list of arguments; `args.n` counts, if it is there
-- @tparam[opt] table given `timeout` (s), `default`, `error`, `signal`, `worker` (1 to the number
-- of workers), `retries` (how often it is made again when its worker dies), `key`, `priority`,
-- `transfer` (a list of buffers among the arguments that are given away)
-- @return a future
function methods:run(task, args, given)
  check_self(self, "run")
  local number = task_number(self, "run", task, 1)
  args = options.argument(2, "run", args == nil and {} or args, "table")
  local n = count_of(args)
  if not n then
    options.bad_argument(2, "run", args.n == nil
      and ("a list of %d: too many arguments"):format(#args)
      or ("field 'n': how many arguments there are expected, got %s"):format(tostring(args.n)))
  end
  given = options.check(3, "run", given, RUN_OPTIONS)
  local policy = submit.policy_of(self, number, given)
  if not policy and (given.default ~= nil or given.error ~= nil) then
    options.bad_argument(3, "run", "'default' and 'error' need a 'timeout'")
  end
  if given.worker and given.worker > self.threads then
    options.bad_argument(3, "run", ("option 'worker': 1 to %d expected, got %d"):format(
      self.threads, given.worker))
  elseif given.worker and given.key ~= nil then
    options.bad_argument(3, "run", "'worker' and 'key' both choose a worker")
  end
  local place = schedule.place(self._handle, given, self._record.options[number])
  local retries = submit.retries_of(self, number, given)
  if given.transfer then
    if retries then
      options.bad_argument(3, "run", "'transfer' gives away what 'retries' would send again")
    end
    args, n = require("treadle.move").append(args, n, given.transfer), n + 1
  end
  local signal = given.signal and abort.signal_of(given.signal)
  if signal and signal.aborted then -- before anything is queued
    local f = future.new()
    future.stand_for(f, false)
    return signal:bind(f)
  elseif number == records.SHIPPED then
    return bound(signal, submit.call(self, number, place, policy, retries, signal, task,
      unpack(args, 1, n)))
  end
  return bound(signal, submit.call(self, number, place, policy, retries, signal,
    unpack(args, 1, n)))
end

M.run = methods.run

--- Call a task once on every worker.
-- @return a future of the list of first results, by worker
function methods:broadcast(task, ...)
  check_self(self, "broadcast")
  local number = task_number(self, "broadcast", task, 1)
  local policy = submit.policy_of(self, number)
  local list = {}
  for worker = 1, self.threads do
    if number == records.SHIPPED then
      list[worker] = submit.call(self, number, worker, policy, nil, nil, task, ...)
    else
      list[worker] = submit.call(self, number, worker, policy, nil, nil, ...)
    end
  end
  return combine.all(list)
end

--- A parallel loop on this pool over a list: see treadle.pmap.
-- @tparam string|function task
-- @return a future of the list of results
function methods:map(task, list, given)
  check_self(self, "map")
  task_number(self, "map", task, 1)
  return (require("treadle.parallel").map("map", self, task, list, given))
end

--- A parallel reduction of a list on this pool: see treadle.preduce.
-- @return a future of the value
function methods:reduce(task, init, list, given)
  check_self(self, "reduce")
  task_number(self, "reduce", task, 1)
  return (require("treadle.parallel").reduce("reduce", self, task, init, list, given))
end

--- What the pool has counted and timed so far; after its end, in all.
-- @treturn table see docs/stats.md
function methods:stats()
  check_self(self, "stats")
  check_near(self, "stats")
  return stats.read(self._handle, self._record.names)
end

--- What its workers may do: what was asked for, what enforces it, what cannot be enforced.
-- @treturn table see docs/permissions.md
function methods:permissions()
  check_self(self, "permissions")
  return require("treadle.permissions").of(self._record)
end

--- Draw a live view of the pool until it is closed, or the pool is.
-- @tparam[opt] table given `interval` (0.5 s), `write` (a function of the text; default: standard
-- error), `width` (default: the terminal's, else 80), `once`
-- @return a handle with `draw` and `close`; with `once` the text of one view
function methods:top(given)
  check_self(self, "top")
  check_near(self, "top")
  return (require("treadle.top").open(self, given))
end

--- What every worker executes now, without disturbing it; blocks for some milliseconds at most.
-- @treturn table a list, by worker, of `{ worker, task, what, since, traceback }`; idle workers are
-- not in it. See docs/look.md
function methods:backtrace()
  check_self(self, "backtrace")
  check_near(self, "backtrace")
  return require("treadle.look").backtrace(self._handle, self._record)
end

--- Sample what the workers execute, from now on, in the background.
-- @tparam number seconds
-- @tparam[opt] table given `interval` (s), 0.001 without
-- @return a `treadle.profile`, at once: `folded()`, `top(n)`, `samples()`, `await()`, `stop()`
function methods:profile(seconds, given)
  check_self(self, "profile")
  check_near(self, "profile")
  local profile = require("treadle.profile").new(self._handle, self._record, seconds, given)
  return profile
end

--- Have a debug hook in every worker, those that come later included: `fn(event, line)`, see
-- `debug.sethook`. Without a function there is none from then on. While there is one, the workers
-- compile nothing, since compiled code calls no hooks. A worker takes it over when its running code
-- has returned or waits.
-- @tparam[opt] function fn travels like an argument of a call
-- @tparam[opt] string mask of "c", "r" and "l"
-- @tparam[opt] number count also call it after so many instructions
-- @return a future that resolves when all workers have taken it over, or the pool has ended; for a
-- task of the pool at once
function methods:sethook(fn, mask, count)
  check_self(self, "sethook")
  check_near(self, "sethook")
  if self._record.runtime == "process" then
    error("'sethook' is not to be had of workers with runtime = \"process\"", 2)
  end
  require("treadle.hook").set(self._handle, fn, mask, count)
  local handle = self._handle
  return news.when_changed(self, function() return core.pool_is_hooked(handle) end)
end

--- A future that resolves when the pool would take a call: at once, if there is no `max_queue`.
function methods:ready()
  check_self(self, "ready")
  local own = self._record.schedule
  if own then
    return own:ready(self._handle)
  end
  return schedule.ready(self._handle)
end

--- A future that resolves when nothing is queued or running in the pool, nested calls included.
function methods:drained()
  check_self(self, "drained")
  local record = self._record
  if self._is_own then
    error("a task cannot wait for its own pool to be drained: it runs in it", 2)
  end
  local f = future.new()
  if future.is_pending(record.stopped) then
    record.drained[#record.drained + 1] = f
    core.pool_watch(self._handle, true)
  else
    f:_resolve()
  end
  return f
end

-- --- closing -----------------------------------------------------------------------------------

local function late_close(self, timeout)
  return ("not finished within %g s of closing the %s"):format(math.max(0, timeout),
    self._record.what or "pool")
end

--- What would replace the state of a thread.
local function check_renewable(self, name)
  if self._record.what == "thread" then
    error(("'%s' is for pools: a thread keeps its one state"):format(name), 3)
  end
end

--- Take no more calls, finish what was accepted, stop the workers; returns when that is done (a
-- worker that closes its own pool does not wait for it).
-- @tparam[opt] number timeout seconds after which it terminates; without it there is no limit
function methods:close(timeout)
  check_self(self, "close")
  if timeout ~= nil then
    options.seconds(1, "close", timeout)
  end
  say(self, "pool", "close: %s", timeout and ("within %g s"):format(timeout)
    or "once all is done")
  core.pool_close(self._handle)
  if self._is_own then
    if timeout and timeout < math.huge then
      loop.add_waiter(core.timer(math.max(0, timeout)), function()
        self:terminate(late_close(self, timeout))
      end)
    end
    return
  end
  local record = self._record
  if record.schedule then
    record.schedule:close()
  end
  if next(future.asked) then -- a task may wait for somebody to go on with an iterator: if that is
    collectgarbage() -- garbage, the task need not
  end
  if not record.stopped:wait(timeout) then
    self:terminate(late_close(self, timeout))
  end
  if not record.closed:wait(self._terminate_timeout) then
    core.pool_abandon(self._handle)
    if record.trace then
      require("treadle.trace").finish(record)
    end
    record.closed:_resolve()
  end
end

--- Reject what has not started, with kind "cancelled": calls in the queues, also those of tasks,
-- calls that wait for their arguments, and callers that wait for room. What runs goes on.
-- @tparam[opt] string reason text for the errors
-- @treturn number how many calls that were
function methods:cancel_pending(reason)
  check_self(self, "cancel_pending")
  local record = self._record
  local text = errors.reason(reason) or "the pool's pending calls were cancelled"
  local count = core.pool_cancel_pending(self._handle, text)
  if record.schedule then
    count = count + record.schedule:cancel(text)
  end
  local held = {}
  for f in pairs(record.held) do
    held[#held + 1] = f
  end
  for _, f in ipairs(held) do
    record.held[f] = nil
    count = count + (f:cancel(text) and 1 or 0)
  end
  say(self, "pool", "cancelled what was pending: %d calls", count)
  return count
end

--- Replace the state of every worker: each finishes the jobs that it runs, at most
-- `terminate_timeout` long, closes its state and boots a fresh one. Calls go on meanwhile.
-- @return a future that resolves when all have been replaced, or the pool has closed; for a task of
-- the pool, whose own worker cannot be replaced before it returns, at once
function methods:recycle()
  check_self(self, "recycle")
  check_renewable(self, "recycle")
  say(self, "pool", "recycle")
  local handle, before = self._handle, {}
  for worker = 1, self.threads do
    before[worker] = core.pool_states(handle, worker)
  end
  core.pool_recycle(handle)
  return news.when_changed(self, function()
    for worker = 1, core.pool_size(handle) or 0 do -- those that have left meanwhile are gone, too
      if core.pool_states(handle, worker) == before[worker] then
        return false
      end
    end
    return true
  end)
end

--- Change the size, now: `pool:resize(n)` to n workers, `pool:resize(min, max)` to as many of them
-- as there is work for. Workers with numbers beyond it finish the jobs that they run, at most
-- `terminate_timeout` long, and end; calls that were sent to them go on to the others.
-- @tparam number min at least 1, or 0 if `max` is given
-- @tparam[opt] number max at least 1
-- @return a future that resolves when the workers are as many as they are to be, by this call or by
-- a later one, or when the pool has ended; for a task of the pool, which itself may have to end, at
-- once
function methods:resize(min, max)
  check_self(self, "resize")
  if core.confined then
    errors.raise("permission", "resize: permission denied: a confined worker starts no workers")
  end
  check_renewable(self, "resize")
  options.value(1, "resize", min, max == nil and "count" or "tally")
  if max ~= nil then
    options.value(2, "resize", max, "count")
    if max < min then
      options.bad_argument(2, "resize", ("at least %d, the minimum, expected, got %d"):format(min,
        max))
    end
  end
  if (max or min) > core.MAX_WORKERS then
    options.bad_argument(max and 2 or 1, "resize", ("at most %d"):format(core.MAX_WORKERS))
  end
  local handle = self._handle
  say(self, "pool", "resize: %s", max and ("%d to %d"):format(min, max) or min)
  core.pool_resize(handle, min, max or min)
  return news.when_changed(self, function() return core.pool_is_sized(handle) end)
end

--- Call `fn(event)` whenever something of that name happens: "worker_start", "worker_exit",
-- "job_start", "job_done", "job_error", "queue_full", "drain", "message".
-- @treturn function unsubscribes
function methods:on(event, fn)
  check_self(self, "on")
  if self._is_own then
    error("events of a pool are told to the state that made it, not to its tasks", 2)
  end
  local unsubscribe = events.on(self._record, self._handle, event, fn)
  return unsubscribe
end

--- Record what the pool does to a file, which Perfetto, chrome://tracing and `treadle trace` show.
-- @tparam string path of the file; what is there is overwritten
-- @return a recording: `close()` ends it, as the pool's end does
function methods:trace(path)
  check_self(self, "trace")
  if self._is_own then
    error("a pool is recorded by the state that made it, not by its tasks", 2)
  end
  return (require("treadle.trace").open(self._handle, self._record, self.name, path))
end

--- Stop now: what is queued or running rejects with kind "closed". A worker ends as soon as its
-- running code comes back from Lua or waits.
-- @tparam[opt] string reason text for the errors
function methods:terminate(reason)
  check_self(self, "terminate")
  local record = self._record
  record.reason = errors.reason(reason) or record.reason
  if self._is_own and record.what == "thread" then
    record.reason = record.reason or "the thread has terminated itself"
  end
  record.terminated = record.terminated or future.is_pending(record.stopped)
  say(self, "pool", "terminate: %s", record.reason or "the pool is closed")
  if record.reason then
    core.pool_reason(self._handle, record.reason)
  end
  core.pool_terminate(self._handle, record.reason)
  news.stop(record)
  inline.sweep()
end

return M
