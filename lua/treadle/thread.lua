--- One dedicated worker that keeps its state: calls, and messages both ways.
-- It stands on a pool of one worker that is not replaced, and on two channels.
-- @classmod treadle.thread
local channel = require "treadle.channel"
local errors = require "treadle.error"
local future = require "treadle.future"
local listeners = require "treadle.listeners"
local loop = require "treadle.loop"
local mailbox = require "treadle.mailbox"
local opening = require "treadle.opening"
local options = require "treadle.options"
local pools = require "treadle.pool"

local M = {}

local methods = {}
local mt = { __name = "treadle.thread", __index = methods }

local OPTIONS = {
  data = "any", name = "name", timeout = "seconds", concurrency = "count", max_memory = "bytes",
  max_payload = "bytes", terminate_timeout = "seconds", init = "name",
  debug = function(value) return require("treadle.debug").check(value) end,
  permissions = function(value) return require("treadle.permissions").check(value) end,
}

local RUN_OPTIONS = {
  timeout = "any", default = "any", error = "any", signal = "any", priority = "any",
  transfer = "any",
}

local EVENTS = { message = true, exit = true, error = true }

function mt:__tostring()
  return ("thread '%s'%s"):format(self.name, self._state.exit and " (over)" or "")
end

--- Whether a value is a thread.
function M.is(value)
  return type(value) == "table" and getmetatable(value) == mt
end

local function check_self(self, name)
  if not M.is(self) then
    options.misused(name, "thread", self, 2)
  end
end

--- Call those who listen to "exit" or "error", each in a coroutine. What they raise is theirs.
-- @treturn boolean whether somebody does
local function tell(state, name, value)
  local told = listeners.copy(state.listeners, name)
  for _, entry in ipairs(told) do
    loop.spawn(future.new(), function()
      local ok, err = xpcall(entry.fn, mailbox.describe, value)
      if not ok then
        listeners.complain(err, name)
      end
    end)
  end
  return #told > 0
end

local function tell_error(state, err)
  if not tell(state, "error", err) then
    errors.tell(("error in thread '%s': %s"):format(state.name, errors.text(err)))
  end
end

--- How the thread has ended: the event "exit".
local function exit_of(state)
  local record = state.record
  local died_of, reason = record.died_of, record.reason
  if died_of then
    return { event = "exit", reason = "crashed", message = reason,
      error = errors.new(died_of, reason) }
  end
  local is_terminated = record.terminated or record.told ~= nil
  return { event = "exit", reason = is_terminated and "terminated" or "closed",
    message = is_terminated and reason or nil }
end

--- The worker is no more: what it has sent, then its end.
local function finish(state)
  state.up:close()
  state.down:close()
  state.box:on_rest(function()
    local exit = exit_of(state)
    state.exit = exit
    if exit.error then
      tell_error(state, exit.error)
    end
    tell(state, "exit", exit)
    state.gone:_resolve()
  end)
end

--- Start a worker of its own for a module; returns when it has loaded that.
-- @tparam string|table given a module's name, or a table of tasks that the calling file exports
-- @tparam[opt] table opts `data`, `name`, `timeout`, `concurrency`, `max_memory`, `max_payload`,
-- `terminate_timeout`, `init`
-- @raise a `treadle.error` of kind "load" with the worker's traceback
function M.new(given, opts)
  local down, up = channel.new(math.huge), channel.new(math.huge)
  local pool = opening.dedicated(given, opts, OPTIONS, { inbox = down, outbox = up })
  local state = {
    name = pool.name, record = pool._record, up = up, down = down,
    listeners = {}, gone = future.new(),
  }
  state.box = mailbox.new(up, function(err) listeners.complain(err, "message") end)
  state.record.said = function(value, name)
    if name == "error" then
      loop.defer(function() tell_error(state, value) end)
    else -- it could not be read here
      listeners.complain(value, "error")
    end
  end
  future.on_settled(state.record.closed, function() finish(state) end)
  return setmetatable({ name = pool.name, call = pool.call, _pool = pool, _state = state }, mt)
end

--- Call a task by name, or a function that travels with the call: `pool:run` without its choice of
-- a worker.
-- @return a future
function methods:run(task, args, given)
  check_self(self, "run")
  options.check(3, "run", given, RUN_OPTIONS)
  return pools.run(self._pool, task, args, given)
end

--- Send one value to the worker; never waits.
-- @param value anything that a call could take as an argument
-- @raise kind "payload", "closed"
function methods:send(value)
  check_self(self, "send")
  local state = self._state
  if not future.is_pending(state.record.stopped) or state.closing
    or not state.down:try_send(value) then
    errors.raise("closed", state.record.reason or "the thread is closed")
  end
end

--- Receive what the worker has sent: wait until there is something.
-- @tparam[opt] number timeout seconds; without it there is no limit
-- @return the value, true; or nil, false and why: "closed" (the thread has ended and nothing is
-- left) or "timeout"
function methods:recv(timeout)
  check_self(self, "recv")
  if timeout ~= nil then
    options.seconds(1, "recv", timeout)
  end
  return self._state.up:recv(timeout)
end

--- Call `fn(value)` for every message, `fn(exit)` when the thread has ended ("exit"), `fn(err)`
-- when something failed in it that no call carries ("error").
-- @treturn function unsubscribes
function methods:on(event, fn)
  check_self(self, "on")
  options.argument(1, "on", event, "string")
  options.argument(2, "on", fn, "function")
  if not EVENTS[event] then
    options.bad_argument(1, "on", ("unknown event '%s', did you mean '%s'?"):format(event,
      options.nearest(event, EVENTS)))
  elseif event == "message" then
    return self._state.box:on(fn)
  end
  return (listeners.add(self._state.listeners, { name = event, fn = fn }))
end

--- Take no more calls and messages, handle those that came, run the module's `on_close`, end the
-- thread; returns when that is done and what it has sent is handed on.
-- @tparam[opt] number timeout seconds after which it terminates; without it there is no limit
function methods:close(timeout)
  check_self(self, "close")
  if timeout ~= nil then
    options.seconds(1, "close", timeout)
  end
  local state = self._state
  state.closing = true
  state.record.reason = state.record.reason or "the thread is closed"
  self._pool:close(timeout)
  if not state.exit and not state.box:is_running() then
    state.gone:wait(timeout and self._pool._terminate_timeout)
  end
end

--- Stop now: what is queued or running rejects with kind "closed".
-- @tparam[opt] string reason text for the errors
function methods:terminate(reason)
  check_self(self, "terminate")
  local state = self._state
  if future.is_pending(state.record.stopped) then
    self._pool:terminate(errors.reason(reason) or "the thread was terminated")
  end
end

--- What its worker may do.
-- @treturn table see docs/permissions.md
function methods:permissions()
  check_self(self, "permissions")
  return self._pool:permissions()
end

--- What it has counted and timed so far; after its end, in all.
-- @treturn table see docs/stats.md
function methods:stats()
  check_self(self, "stats")
  return self._pool:stats()
end

return M
