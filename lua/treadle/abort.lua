--- Stopping many things at once: a controller, and the signal that it gives.
-- What is bound to a signal stands in its list until it is over or the signal is aborted. Only
-- while something stands there, the signal has a timer and follows other signals: one that nobody
-- uses any more costs nothing, and a long-lived one that it follows does not know of it.
-- @module treadle.abort
local core = require "treadle.core"
local errors = require "treadle.error"
local future = require "treadle.future"
local loop = require "treadle.loop"
local options = require "treadle.options"

local M = {}

-- --- the list ------------------------------------------------------------------------------------

--- A ring of nodes; it begins and ends at the signal's own.
local function new_ring()
  local ring = {}
  ring.before, ring.after = ring, ring
  return ring
end

local function is_empty(ring)
  return ring.after == ring
end

local function link(ring, fire)
  local node = { fire = fire, before = ring.before, after = ring }
  ring.before.after = node
  ring.before = node
  return node
end

--- Whether it was still there.
local function unlink(node)
  if not node.before then
    return false
  end
  node.before.after, node.after.before = node.after, node.before
  node.before, node.after = nil, nil
  return true
end

-- --- signals -------------------------------------------------------------------------------------

--- Fields: `_ring`; `_reason`, once it is aborted; what aborts it: `_deadline` with the reason
-- `_late`, and `_sources`; while those are watched, `_timer` and `_links` in the sources' rings.
local signal_methods = {}
local signal_mt = { __name = "treadle.abort.signal" }

--- Why a signal is aborted, nil if it is not.
local function reason_of(self)
  if self._reason then
    return self._reason
  end
  for _, source in ipairs(self._sources) do
    local reason = reason_of(source)
    if reason then
      return reason
    end
  end
  return core.now() >= self._deadline and self._late or nil
end

--- What aborts the signal need not be watched while its list is empty.
local function unwatch(self)
  if self._timer then
    core.timer_stop(self._timer)
    self._timer = false
  end
  for i, node in ipairs(self._links) do
    unlink(node)
    self._links[i] = nil
    if is_empty(self._sources[i]._ring) then
      unwatch(self._sources[i])
    end
  end
end

--- The first to come wins. Each in the list is taken from it before it is told, since it may bind
-- and abort; what goes wrong with one does not concern the others.
local function fire(self, reason)
  if self._reason then
    return false
  end
  local ring, failed, failure = self._ring, false, nil
  self._reason = reason
  while not is_empty(ring) do
    local node = ring.after
    unlink(node)
    local ok, err = pcall(node.fire, reason)
    if not ok then
      failed, failure = true, err
    end
  end
  unwatch(self)
  if failed then
    error(failure, 0)
  end
  return true
end

local function watch(self)
  for i, source in ipairs(self._sources) do
    if is_empty(source._ring) then
      watch(source)
    end
    self._links[i] = link(source._ring, function(reason) fire(self, reason) end)
  end
  if self._deadline < math.huge then
    self._timer = core.timer(math.max(0, self._deadline - core.now()))
    loop.add_waiter(self._timer, function() fire(self, self._late) end)
  end
end

--- Enter `fn` into the list of a signal that is not aborted.
-- @return a function that takes it away again
local function enter(self, fn)
  if is_empty(self._ring) then
    watch(self)
  end
  local node = link(self._ring, fn)
  return function()
    if unlink(node) and is_empty(self._ring) then
      unwatch(self)
    end
  end
end

function signal_mt:__index(key)
  if key == "aborted" then
    return reason_of(self) ~= nil
  elseif key == "reason" then
    return reason_of(self)
  end
  return signal_methods[key]
end

function signal_mt:__tostring()
  return self.aborted and ("signal (aborted: %s)"):format(self.reason) or "signal"
end

local function is_signal(value)
  return type(value) == "table" and getmetatable(value) == signal_mt
end

local function check_self(self, is, what, name)
  if not is(self) then
    options.misused(name, what, self, 2)
  end
end

--- Call `fn(reason)` in a coroutine of its own when the signal is aborted: at the next turn of the
-- loop if it is already.
-- @return a function that takes this back
function signal_methods:on_abort(fn)
  check_self(self, is_signal, "signal", "on_abort")
  options.argument(1, "on_abort", fn, "function")
  local reason = reason_of(self)
  if not reason then
    return enter(self, function(why) loop.spawn(future.new(), fn, why) end)
  end
  local wanted = true
  loop.defer(function()
    if wanted then
      loop.spawn(future.new(), fn, reason)
    end
  end)
  return function() wanted = false end
end

--- Cancel a future when the signal is aborted: now, if it is already.
-- @return the future
function signal_methods:bind(f)
  check_self(self, is_signal, "signal", "bind")
  if not future.is(f) then
    options.bad_argument(1, "bind", "future expected, got " .. type(f))
  end
  if future.is_pending(f) then
    local reason = reason_of(self)
    if reason then
      f:cancel(reason)
    else
      future.at_end(f, enter(self, function(why) f:cancel(why) end))
    end
  end
  return f
end

-- --- controllers ---------------------------------------------------------------------------------

local methods = {}
local mt = { __name = "treadle.abort", __index = methods }

function mt:__tostring()
  return ("abort controller (%s)"):format(tostring(self.signal))
end

local function is_controller(value)
  return type(value) == "table" and getmetatable(value) == mt
end

--- Cancel everything that is bound to the signal, and all that will be.
-- @param[opt] reason text for the errors
-- @treturn boolean whether it was not aborted yet
function methods:abort(reason)
  check_self(self, is_controller, "abort controller", "abort")
  if self.signal.aborted then
    return false
  end
  return fire(self.signal, errors.reason(reason) or "aborted")
end

--- Whether the signal is aborted, by whatever aborts it.
function methods:aborted()
  check_self(self, is_controller, "abort controller", "aborted")
  return self.signal.aborted
end

-- --- the module ----------------------------------------------------------------------------------

--- A check of options: a signal, or a controller for its signal.
function M.check(value)
  return is_signal(value) or is_controller(value), "a signal of treadle.abort()"
end

--- The signal that was given, itself or by its controller.
function M.signal_of(value)
  return is_controller(value) and value.signal or value
end

local function check_list(list)
  local n = 0
  if type(list) == "table" and not M.check(list) then
    for _, value in pairs(list) do
      n = n + (M.check(value) and 1 or math.huge)
    end
    return n == #list, "a list of signals"
  end
  return false, "a list of signals"
end

local OPTIONS = { timeout = "seconds", any = check_list }

--- Make an abort controller.
-- @tparam[opt] table given `timeout`: seconds after which it aborts by itself; `any`: a list of
-- signals, each of which aborts it
function M.abort(given)
  given = options.check(1, "abort", given, OPTIONS)
  local sources = {}
  for i, value in ipairs(given.any or {}) do
    sources[i] = M.signal_of(value)
  end
  local signal = setmetatable({
    _ring = new_ring(), _reason = false,
    _sources = sources, _links = {},
    _deadline = given.timeout and core.now() + given.timeout or math.huge,
    _late = given.timeout and ("aborted after %g s"):format(given.timeout), _timer = false,
  }, signal_mt)
  return setmetatable({ signal = signal }, mt)
end

return M
