--- A handle on results that are still to come. Belongs to the state that made it.
-- Its fields are numbers (`core.STATE` ...), because C fills them in; see src/bind/bind.h.
-- @classmod treadle.future
local core = require "treadle.core"
local errors = require "treadle.error"
local loop = require "treadle.loop"
local options = require "treadle.options"

local STATE, VALUE, COUNT, WAITER = core.STATE, core.VALUE, core.COUNT, core.WAITER
local SLOT, OWN, NEXT = core.SLOT, core.OWN, core.NEXT
local PENDING, RESOLVED, REJECTED, CANCELLED =
  core.PENDING, core.RESOLVED, core.REJECTED, core.CANCELLED

--- Further fields, which only this module knows: the warning that a rejection still owes, what a
-- cancellation of this future must stop, the options of the call, who is told of what goes on after
-- a cancellation, and the future of the end of that.
local WARNING, UPSTREAM, POLICY, WATCHER, REST = NEXT + 1, NEXT + 2, NEXT + 3, NEXT + 4, NEXT + 5

--- And those of few: what the call emits (see stream.lua; C knows it, too); the future of the job
-- that this one, which has none, stands for; who must hear of that.
local STREAM = core.STREAM
local STANDS_FOR, FOLLOWER = STREAM + 1, STREAM + 2

local methods = {}
local mt = { __name = "treadle.future", __index = methods }
local M = {}

local names = {
  [PENDING] = "pending",
  [RESOLVED] = "resolved",
  [REJECTED] = "rejected",
  [CANCELLED] = "cancelled",
}

function mt:__tostring()
  return ("future (%s)"):format(names[self[STATE]])
end

--- What a future would have to be settled for.
local function no_result()
  error("a future is not its result yet: f:await() waits for that and returns it", 2)
end

for _, event in ipairs { "add", "sub", "mul", "div", "mod", "pow", "unm", "concat", "call" } do
  mt["__" .. event] = no_result
end

--- Whether a value is a future.
function M.is(value)
  return type(value) == "table" and getmetatable(value) == mt
end

--- A pending future; settled with `_resolve` or `_reject`.
function M.new()
  -- room for all of C's fields; bytecode forgets nils at the end
  return setmetatable({ PENDING, nil, nil, nil, nil, nil, false }, mt)
end

local function is_pending(self)
  return self[STATE] == PENDING
end
M.is_pending = is_pending

local function tell(self)
  if self[WAITER] ~= nil then
    loop.tell(self)
  end
end

--- Resolve, unless it is settled: the first to come wins.
function methods:_resolve(...)
  if is_pending(self) then
    local n, value = select("#", ...), (...)
    if n > 1 then
      value = { ... }
      if not is_pending(self) then -- a finalizer has settled it
        return
      end
    end
    if n ~= 1 then
      self[COUNT] = n
    end
    self[VALUE] = value
    self[STATE] = RESOLVED
    tell(self)
  end
end

--- A value whose collection prints the error of a future that nobody ever looked at. What was
-- cancelled or closed owes no warning: the host asked for it.
local function warning(err)
  local proxy = newproxy(true)
  getmetatable(proxy).__gc = function()
    errors.tell("a rejected future was dropped unseen: " .. errors.text(err))
  end
  return proxy
end

--- Whether nobody looks at a future that has this waiter: see `at_end`.
local function is_unseen(waiter)
  if type(waiter) ~= "table" then
    return waiter == nil
  elseif waiter.done then
    return waiter.is_blind
  end
  for i = 1, #waiter do
    if not is_unseen(waiter[i]) then
      return false
    end
  end
  return true
end

--- Reject, unless it is settled. Who is told that it was cancelled, has been.
function methods:_reject(err, state)
  if is_pending(self) then
    local kind = errors.is(err) and err.kind
    local waiter = self[WAITER]
    self[VALUE] = err
    self[STATE] = state or kind == "cancelled" and CANCELLED or REJECTED
    if self[STATE] == REJECTED and kind ~= "closed" and is_unseen(waiter) then
      self[WARNING] = warning(err)
    end
    if waiter ~= nil then
      loop.tell(self)
    end
  end
end

--- Call `fn` in the turn after the future is settled. That is not to look at it.
function M.at_end(self, fn)
  loop.add_waiter(self, { 1, done = fn, failed = fn, is_blind = true })
end

--- The future has been looked at: it owes no warning any more.
local function seen(self)
  local proxy = self[WARNING]
  if proxy then
    self[WARNING] = nil
    getmetatable(proxy).__gc = nil
  end
end
M.seen = seen

local function results(self)
  local n = self[COUNT]
  if n == nil then
    return self[VALUE]
  elseif n > 0 then
    return unpack(self[VALUE], 1, n)
  end
end

--- All results of a resolved future.
M.results = results

--- The first result of a resolved future.
function M.value(self)
  if self[COUNT] == nil then
    return self[VALUE]
  end
  return self[COUNT] > 0 and self[VALUE][1] or nil
end

--- The error of a rejected or cancelled one.
function M.error(self)
  return self[VALUE]
end

local CANCEL_OPTIONS = { force = "boolean", reason = "any" }

local function check_self(self, name)
  if not M.is(self) then
    options.misused(name, "future", self, 2)
  end
end

--- Wait for the results: yields inside a coroutine, runs the loop outside one.
-- @return all results of the task
-- @raise the task's error, a `treadle.error`
function methods:await()
  if getmetatable(self) ~= mt then
    check_self(self, "await")
  end
  if self[STATE] == PENDING then
    loop.wait_for(self)
  end
  if self[STATE] == RESOLVED then
    if self[COUNT] == nil then
      return self[VALUE]
    end
    return results(self)
  end
  seen(self)
  error(errors.add_site(self[VALUE], 2), 0)
end

--- Wait like `await`, but return `true, ...` or `false, err`.
function methods:pawait()
  check_self(self, "pawait")
  if is_pending(self) then
    loop.wait_for(self)
  end
  if self[STATE] == RESOLVED then
    return true, results(self)
  end
  seen(self)
  return false, errors.add_site(self[VALUE], 2)
end

--- Wait at most `timeout` seconds; settles nothing.
-- @treturn boolean whether it is settled
function methods:wait(timeout)
  check_self(self, "wait")
  if timeout ~= nil then
    options.seconds(1, "wait", timeout)
  end
  if is_pending(self) then
    loop.wait_for(self, timeout and timeout < math.huge and core.now() + timeout or nil)
  end
  seen(self)
  return not is_pending(self)
end

--- `"pending"`, `"resolved"`, `"rejected"` or `"cancelled"`; looks whether results have arrived.
function methods:state()
  check_self(self, "state")
  if is_pending(self) then
    loop.poll()
  end
  seen(self)
  return names[self[STATE]]
end

--- Who is told of what goes on after the cancellation that is being done.
local watcher

--- The same, until `fn(...)` has returned.
local function watched_by(other, fn, ...)
  local before = watcher
  watcher = other
  local ok, err = pcall(fn, ...)
  watcher = before
  if not ok then
    error(err, 0)
  end
end

--- Stop what a future that has just been settled was to have its results from: a job, a timer, a
-- coroutine, other futures.
local function stop(self, given, text, force)
  local upstream, rest = self[UPSTREAM], nil
  local err = errors.new("cancelled", text) -- it cannot be half cancelled for want of memory
  if self[SLOT] then
    rest = watcher and not force and M.new() or nil
    rest = core.settle(self, text, force, rest) and rest
    core.timer_stop(self)
  elseif type(self[VALUE]) == "thread" then
    self[REST] = M.new()
    rest = require("treadle.cancel").coroutine(self[VALUE], text, self[REST])
    self[REST] = rest
  end
  if watcher and rest then
    watcher(rest)
  end
  self:_reject(err, CANCELLED)
  if upstream then
    upstream(given)
  end
end

--- Give it up: settles it now with kind "cancelled". A queued job never runs; a running one, or a
-- spawned coroutine, sees `treadle.cancelled()` become true and its waits raise; so do the calls
-- that the job made, and the coroutines that were spawned there.
-- With `force` a job's code is stopped, wherever it is, and its worker gets a fresh state.
-- @param[opt] given a text for the error, or a table: `reason`, `force`
-- @treturn boolean whether it was still pending
function methods:cancel(given)
  check_self(self, "cancel")
  local reason, force = given, false
  if type(given) == "table" and not errors.is(given) then
    options.check(1, "cancel", given, CANCEL_OPTIONS)
    reason, force = given.reason, given.force
  end
  if not is_pending(self) then
    return false
  end
  local text = errors.reason(reason) or "the call was cancelled"
  local own = self[WATCHER]
  if own then
    watched_by(own, stop, self, given, text, force)
  else
    stop(self, given, text, force)
  end
  return true
end

--- Tell `fn(rest)` when a cancellation of `self` leaves something behind that has yet to end: a
-- job that runs, a coroutine. `rest` is a future that is settled then, with what is raised after
-- the cancellation.
function M.watch(self, fn)
  local before = self[WATCHER]
  self[WATCHER] = before and function(rest)
    before(rest)
    fn(rest)
  end or fn
end

--- Nobody waits for `self` any more, since who did was cancelled: if it stands for work that is
-- only done for those who wait for it, it is cancelled, too.
-- @param target whom the end of that coroutine is told; its `watch`, if it has one, hears of what
-- goes on, and its `is_forced()` is whether it is to be stopped by force
function M.abandon(self, reason, target)
  if is_pending(self) and is_unseen(self[WAITER])
    and (self[SLOT] or self[UPSTREAM] or type(self[VALUE]) == "thread") then
    local watch = target and target.watch
    watched_by(watch, self.cancel, self, { reason = reason, force = watch and target:is_forced() })
  end
end

--- An iterator over what the task passes to `treadle.emit`, in that order; then it ends as the call
-- does: it raises the error, if there is one. Ask for it before you wait for anything else.
-- @treturn function the next value; needs no arguments
function methods:stream()
  check_self(self, "stream")
  local next_value = require("treadle.stream").of(self) -- no tail call: it knows its caller's line
  return next_value
end

--- Handles of streams that somebody has asked for.
M.asked = setmetatable({}, { __mode = "k" })

--- `self` stands for a call whose job is made by and by: that of `f` now; false: there is none yet.
function M.stand_for(self, f)
  self[STANDS_FOR] = f
  local follower = self[FOLLOWER]
  if follower then
    follower(f)
  end
end

--- What a cancellation of `self` must stop: a function of the reason.
function M.set_upstream(self, fn)
  self[UPSTREAM] = fn
end

--- Run `fn` when the future is settled: at the next turn of the loop if it is already.
function M.on_settled(self, fn)
  if is_pending(self) then
    loop.add_waiter(self, fn)
  else
    seen(self)
    loop.defer(function() fn(self) end)
  end
end

--- Call `fn(a, b)`, on which `target` depends: without memory for it, `target` is rejected.
local function guard(target, fn, a, b)
  local ok, err = pcall(fn, a, b)
  if not ok then
    target:_reject(errors.NO_MEMORY)
    if err ~= errors.NO_MEMORY.message then
      error(err, 0)
    end
  end
end
M.guard = guard

--- Settle `target` as `source` is; a future that it was resolved with is adopted.
local function adopt(target, source)
  if source[STATE] == RESOLVED then
    local first = M.value(source)
    if M.is(first) and source[COUNT] == nil then
      M.set_upstream(target, function(reason) first:cancel(reason) end)
      if is_pending(first) then
        target[OWN] = target[OWN] or first[OWN]
      end
      return M.on_settled(first, function() guard(target, adopt, target, first) end)
    end
    target:_resolve(results(source))
  else
    target:_reject(source[VALUE], source[STATE])
  end
end

--- A future that follows `self`: `on_resolved(results...)` or `on_rejected(err)` run in a coroutine
-- of their own; without a function the outcome passes on.
local function chain(self, on_resolved, on_rejected)
  local target = M.new()
  target[OWN] = self[OWN]
  M.set_upstream(target, function(reason) self:cancel(reason) end)
  local function continue()
    if not is_pending(target) then
      return
    end
    local step = M.new()
    if self[STATE] == RESOLVED and on_resolved then
      loop.spawn(step, on_resolved, results(self))
    elseif self[STATE] ~= RESOLVED and on_rejected then
      loop.spawn(step, on_rejected, self[VALUE])
    else
      return adopt(target, self)
    end
    M.set_upstream(target, function(reason) step:cancel(reason) end)
    M.on_settled(step, function() guard(target, adopt, target, step) end)
  end
  M.on_settled(self, function() guard(target, continue) end)
  return target
end

--- A new future of what `fn(results...)` returns; a future that it returns is adopted.
function methods:and_then(fn)
  check_self(self, "and_then")
  options.argument(1, "and_then", fn, "function")
  return chain(self, fn, nil)
end

--- A new future of the results, or of what `fn(err)` returns if this one is rejected.
function methods:catch(fn)
  check_self(self, "catch")
  options.argument(1, "catch", fn, "function")
  return chain(self, nil, fn)
end

--- A new future with this one's outcome, settled after `fn()` has run; its error replaces that.
function methods:finally(fn)
  check_self(self, "finally")
  options.argument(1, "finally", fn, "function")
  local function after(settle)
    return function(...)
      local values, n = { ... }, select("#", ...)
      local result = fn()
      if M.is(result) then
        result:await()
      end
      return settle(values, n)
    end
  end
  return chain(self, after(function(values, n)
    return unpack(values, 1, n)
  end), after(function(values)
    error(values[1], 0)
  end))
end

--- Limit a call's time. `policy` has `timeout`, and `default` or `error` with their `has_` flags.
-- A job's time is the supervisor's business; a call that is no job yet has a timer of its own.
function M.limit(self, policy)
  self[POLICY] = policy
  if self[SLOT] == nil and is_pending(self) then
    local timer = core.timer(policy.timeout)
    loop.add_waiter(timer, function()
      if is_pending(self) then
        M.expire(self)
      end
    end)
    M.at_end(self, function()
      core.timer_stop(timer)
    end)
  end
  return self
end

--- The time is over: resolve to the default, or reject.
function M.expire(self, fields)
  local policy = self[POLICY] or {}
  if policy.has_default then
    self:_resolve(policy.default)
  elseif policy.has_error then
    self:_reject(policy.error)
  else
    local message = policy.timeout and ("no result within %g s"):format(policy.timeout)
      or "the time for the call is over"
    self:_reject(errors.new("timeout", message, fields))
  end
end

M.mt = mt
M.methods = methods
M.SLOT = SLOT
M.STREAM, M.STANDS_FOR, M.FOLLOWER = STREAM, STANDS_FOR, FOLLOWER

return M
