--- Structured concurrency: children that run for one function, and none of which outlives it.
--
-- A child is a future: of a coroutine, of a call, or one that was added. It has ended when its
-- future is settled and, if that was cancelled, when what it has left behind has ended, too
-- (future.watch). `left` counts what has not ended, and what else holds the group open; the one
-- that brings it to 0 resolves `done`.
-- @classmod treadle.group
local core = require "treadle.core"
local errors = require "treadle.error"
local future = require "treadle.future"
local loop = require "treadle.loop"
local options = require "treadle.options"
local scopes = require "treadle.scopes"

local STATE, OWN = core.STATE, core.OWN
local REJECTED, CANCELLED = core.REJECTED, core.CANCELLED

local methods = {}
local mt = { __name = "treadle.group" }
local M = {}

local function check_self(self, name, level)
  if getmetatable(self) ~= mt then
    options.misused(name, "group", self, level or 2)
  end
end

-- --- cancelling ----------------------------------------------------------------------------------

--- Cancel the children, in the order in which they came.
local function cancel_children(self, given)
  local numbers, children = {}, self._children
  for number in pairs(children) do
    numbers[#numbers + 1] = number
  end
  table.sort(numbers)
  for _, number in ipairs(numbers) do
    if children[number] then
      children[number]:cancel(given)
    end
  end
end

--- Cancel what runs in the group: its children, and its function's waits. The first reason counts.
local function cancel(self, reason, force)
  self._reason, self._force = self._reason or reason, self._force or force
  if not self._scope.reason then
    require("treadle.cancel").group(self._scope, self._co, reason)
  end
  if self._controller then
    self._controller:abort(reason)
  end
  cancel_children(self, { reason = reason, force = self._force })
end

--- Something has failed: the first error is the group's, and those that come later are told with
-- it. A cancellation is no failure.
local function fail(self, err, reason)
  if errors.is(err) and err.kind == "cancelled" then
    return
  elseif not self._has_failed then
    self._has_failed, self._failure = true, err
    cancel(self, reason or "another part of the group has failed")
  elseif self._failure ~= err then
    self._others[#self._others + 1] = err
  end
end

local LATE = "the time for the group is over"

--- The time is over.
local function expire(self)
  if not self._is_over then
    fail(self, errors.new("timeout", ("the group has not ended within %g s"):format(self._timeout)),
      LATE)
  end
end

-- --- children ------------------------------------------------------------------------------------

local function leave(self)
  self._left = self._left - 1
  if self._left == 0 then
    self._is_over = true
    self._done:_resolve()
  end
end

local function has_room(self)
  return self._running < self._limit and self._first > self._last
end

--- One that counts for the limit has ended: start what waits for its turn. A child may end before
-- its start returns.
local function go_on(self)
  self._running = self._running - 1
  if self._is_starting then
    return
  end
  self._is_starting = true
  while self._running < self._limit and self._first <= self._last do
    local child = self._queue[self._first]
    self._queue[self._first] = nil
    self._first = self._first + 1
    child:start()
  end
  self._is_starting = false
end

--- Wait for what a cancelled child has left behind.
local function watcher_of(self)
  return function(rest)
    self._left = self._left + 1
    future.at_end(rest, function()
      if rest[STATE] == REJECTED then
        future.seen(rest)
        fail(self, future.error(rest))
      end
      leave(self)
    end)
  end
end

--- Make a future a child.
-- @tparam boolean is_counted whether it counts for the limit
local function adopt(self, f, is_counted)
  local number = self._count + 1
  self._count = number
  local function ended()
    if f[STATE] == REJECTED then
      future.seen(f)
      fail(self, future.error(f))
    end
  end
  if not future.is_pending(f) then
    ended()
    return f
  end
  self._done[OWN] = self._done[OWN] or f[OWN]
  self._children[number] = f
  future.watch(f, self._watch)
  future.at_end(f, function()
    self._children[number] = nil
    ended()
    if is_counted then
      go_on(self)
    end
    leave(self)
  end)
  self._left = self._left + 1
  self._running = self._running + (is_counted and 1 or 0)
  if self._reason then
    f:cancel { reason = self._reason, force = self._force }
  end
  return f
end

--- A child that is a coroutine; its end is told to it (`targets` in loop.lua).
local child_methods = {}
local child_mt = { __index = child_methods }

local function end_child(child)
  local self = child.group
  if child.has_begun and not child.has_ended then
    child.has_ended = true
    go_on(self)
  end
  if self._children[child.number] then
    self._children[child.number] = nil
    leave(self)
  end
end

function child_methods:_resolve(...)
  self.future:_resolve(...)
  end_child(self)
end

function child_methods:_reject(err)
  self.future:_reject(err)
  future.seen(self.future)
  fail(self.group, err)
  end_child(self)
end

function child_methods:is_forced()
  return self.group._force
end

function child_methods:start()
  local group = self.group
  if not future.is_pending(self.future) then -- it was cancelled in the queue
    return end_child(self)
  end
  group._running, self.has_begun = group._running + 1, true
  local ok = pcall(loop.spawn_in, group._scope, self, self.fn, unpack(self, 1, self.n))
  if not ok then
    self:_reject(errors.NO_MEMORY)
  end
end

--- Run a function in a coroutine of the group, now or when it is its turn.
local function spawn(self, fn, ...)
  local number = self._count + 1
  local child = setmetatable({
    future = future.new(), group = self, watch = self._watch, number = number, fn = fn,
    n = select("#", ...), ...
  }, child_mt)
  self._count, self._children[number] = number, child.future
  self._left = self._left + 1
  if has_room(self) then
    child:start()
  else
    self._queue[self._last + 1] = child
    self._last = self._last + 1
  end
  return child.future
end

local function check_open(self, name)
  check_self(self, name, 3)
  if self._is_over then
    error(("'%s': the group has ended: it takes no more children"):format(name), 3)
  end
end

--- Run `fn(...)` in a coroutine that is a child of the group.
-- @return a future of its results
function methods:spawn(fn, ...)
  check_open(self, "spawn")
  options.argument(1, "spawn", fn, "function")
  return (spawn(self, fn, ...))
end

--- Whether it has tasks to call: a pool, or a thread, whose module is loaded then.
local function is_callee(value)
  local thread = package.loaded["treadle.thread"]
  return require("treadle.pool").is(value) or thread and thread.is(value)
end

local function check_pool(name, pool, task)
  if not is_callee(pool) then
    options.bad_argument(1, name, ("pool or thread expected, got %s"):format(type(pool)), 2)
  end
  options.argument(2, name, task, "string or function", 2)
end

local function call(self, pool, task, args, given)
  if has_room(self) then
    return adopt(self, pool:run(task, args, given), true)
  end
  return spawn(self, function()
    return pool:run(task, args, given):await()
  end)
end

--- Call a task of a pool or a thread as a child of the group.
-- @tparam string|function task
-- @return a future of its results
function methods:call(pool, task, ...)
  check_open(self, "call")
  check_pool("call", pool, task)
  return (call(self, pool, task, { n = select("#", ...), ... }))
end

--- The same with a list of arguments and options, as the `run` of a pool or a thread takes them.
-- @return a future of its results
function methods:run(pool, task, args, given)
  check_open(self, "run")
  check_pool("run", pool, task)
  return (call(self, pool, task, args, given))
end

--- Make a future that is there already a child of the group.
-- @return the future
function methods:add(f)
  check_open(self, "add")
  if not future.is(f) then
    options.bad_argument(1, "add", "future expected, got " .. type(f))
  end
  return adopt(self, f)
end

local CANCEL_OPTIONS = { force = "boolean", reason = "any" }

--- Cancel the function of the group and its children. If nothing fails, the group then raises kind
-- "cancelled".
-- @param[opt] given a text for the error, or a table: `reason`, `force`
-- @treturn boolean whether it was not cancelled yet
function methods:cancel(given)
  check_self(self, "cancel")
  local reason, force = given, false
  if type(given) == "table" and not errors.is(given) then
    options.check(1, "cancel", given, CANCEL_OPTIONS)
    reason, force = given.reason, given.force
  end
  if self._is_over then
    return false
  end
  local was_cancelled = self._reason
  cancel(self, errors.reason(reason) or "the group was cancelled", force)
  return not was_cancelled
end

-- --- the group -----------------------------------------------------------------------------------

--- The code around was cancelled, or is out of memory: that ends the children.
local function stop(self, err)
  fail(self, err)
  cancel(self, errors.reason(err))
  self._stopped = self._stopped or err
end

--- The end of the function: results, or an error. Waits until all children have ended; a
-- cancellation of the code around cancels them, and does not cut the wait short.
local function finish(self, ok, ...)
  scopes.close_group(self._co, self._scope)
  if not ok then
    stop(self, (...))
  end
  leave(self)
  local in_time, err = pcall(loop.wait_for, self._done)
  if not in_time then
    stop(self, err)
    loop.wait_for(self._done, nil, true)
  end
  if self._timer then
    core.timer_stop(self._timer)
  end
  if self._bound then
    self._bound:_resolve()
  end
  if self._has_failed then
    err = self._failure
    if #self._others > 0 and errors.is(err) and err ~= errors.NO_MEMORY then
      err.others = self._others
    end
    error(err, 0)
  elseif self._stopped then
    error(self._stopped, 0)
  end
  return ...
end

local function run(self, fn)
  local around, co = loop.scope_here()
  self._scope, self._co = scopes.open_group(co, around), co
  if self._timeout and self._timeout < math.huge then
    self._timer = core.timer(self._timeout)
    loop.add_waiter(self._timer, function() expire(self) end)
  end
  if self._bound then
    future.at_end(self._bound, function()
      if self._bound[STATE] == CANCELLED and not self._is_over then
        stop(self, future.error(self._bound))
      end
    end)
  end
  return finish(self, xpcall(fn, errors.raised, self))
end

--- What a protected call returns, unprotected.
local function raise(ok, ...)
  if not ok then
    error(errors.add_site((...), 3), 0)
  end
  return ...
end

function mt:__index(key)
  if key == "signal" then
    self._controller = self._controller or require("treadle.abort").abort()
    if self._reason then
      self._controller:abort(self._reason)
    end
    return self._controller.signal
  end
  return methods[key]
end

local OPTIONS = {
  timeout = "seconds", limit = "count", force = "boolean",
  signal = function(value) return require("treadle.abort").check(value) end,
}

--- Run `fn(g)`, and return when it and all children that it has given the group have ended. In a
-- main chunk it runs in a coroutine of its own.
-- @tparam function fn
-- @tparam[opt] table given `timeout` (s), `limit` (how many children run at a time), `signal`,
-- `force` (whether calls are stopped by force when the group is cancelled; true with a timeout)
-- @return the results of `fn`
-- @raise the first error, of `fn` or a child; the others have been cancelled and have ended then
function M.group(fn, given)
  options.argument(1, "group", fn, "function")
  given = options.check(2, "group", given, OPTIONS)
  local force = given.force
  if force == nil then
    force = given.timeout ~= nil
  end
  local self = setmetatable({
    _children = {}, _count = 0, _left = 1, _done = future.new(), _others = {},
    _limit = given.limit or math.huge, _running = 0, _queue = {}, _first = 1, _last = 0,
    _timeout = given.timeout, _force = force,
    _controller = false, _reason = false, _has_failed = false, _stopped = false, _is_over = false,
    _timer = false, _bound = false, _is_starting = false,
  }, mt)
  self._watch = watcher_of(self)
  if given.signal then
    self._bound = require("treadle.abort").signal_of(given.signal):bind(future.new())
    if self._bound[STATE] == CANCELLED then
      error(future.error(self._bound), 0)
    end
  end
  if loop.running() then
    return run(self, fn)
  end
  return raise(loop.spawn(future.new(), pcall, run, self, fn):await())
end

return M
