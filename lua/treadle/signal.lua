--- Values that know who reads them: signals, which are set, and computed values, which follow.
-- They belong to one state. (The signals of treadle.abort are something else.)
-- @classmod treadle.signal
local options = require "treadle.options"
local reactive = require "treadle.reactive"

local M = {}

local rawget, rawset, select = rawget, rawset, select
local is_same = reactive.is_same

local OPTIONS = { equals = "callable", name = "name" }

-- --- signals -------------------------------------------------------------------------------------

local methods = {}
local mt = { __name = "treadle.signal" }

local function check_signal(self, name)
  if type(self) ~= "table" or getmetatable(self) ~= mt then
    options.misused(name, "reactive signal", self, 2)
  end
end

--- Its value.
function methods:get()
  check_signal(self, "get")
  reactive.read(self)
  return self._value
end

--- Its value, without becoming its reader.
function methods:peek()
  check_signal(self, "peek")
  return self._value
end

local function set(self, value)
  if reactive.is_computing() then
    error("a computed value cannot set a signal: it may be computed at any time, or never", 3)
  end
  local old = self._value
  local is_equal
  if self._equals then
    is_equal = reactive.is_equal(self, old, value)
  else
    is_equal = is_same(old, value)
  end
  if not is_equal then
    rawset(self, "_value", value)
    reactive.change(self)
  end
end

--- Give it another value: what is computed from it is out of date from now on, and the effects
-- that depend on it run at the next turn of the loop. An equal one changes nothing.
function methods:set(value)
  check_signal(self, "set")
  set(self, value)
end

--- Set it to what `fn` makes of its value.
function methods:update(fn)
  check_signal(self, "update")
  options.argument(1, "update", fn, "function")
  set(self, fn(self._value))
end

function mt:__index(key)
  if key == "value" then
    reactive.read(self)
    return rawget(self, "_value")
  end
  return methods[key]
end

function mt:__newindex(key, value)
  if key ~= "value" then
    error(("a reactive signal has no field '%s': it has 'value'"):format(tostring(key)), 2)
  end
  set(self, value)
end

--- `s()` reads, `s(value)` sets, also to nil.
function mt:__call(...)
  if select("#", ...) > 0 then
    set(self, (...))
    return
  end
  reactive.read(self)
  return self._value
end

local function text(what, self)
  return ("%s%s (%s)"):format(what, self._name and (" '%s'"):format(self._name) or "",
    tostring(self._value))
end

function mt:__tostring()
  return text("reactive signal", self)
end

--- Make a signal.
-- @param value
-- @tparam[opt] table given `equals(old, new)`: whether a value counts as the same (by default what
-- is rawequal does, and NaN); `name` for messages
function M.signal(value, given)
  given = options.check(2, "signal", given, OPTIONS)
  return setmetatable({
    _version = 1, _seen = 0, _readers = false, _last_reader = false,
    _equals = given.equals or false, _name = given.name or false, _gauge = false, _fn = false,
    _value = value,
  }, mt)
end

-- --- computed values -----------------------------------------------------------------------------

local computed_methods = {}
local computed_mt = { __name = "treadle.computed" }

local function check_computed(self, name)
  if type(self) ~= "table" or getmetatable(self) ~= computed_mt then
    options.misused(name, "computed value", self, 2)
  end
end

--- Its value: computed now, if it is not up to date.
-- @raise what its function has raised
function computed_methods:get()
  check_computed(self, "get")
  return (reactive.value(self, true))
end

--- Its value, without becoming its reader.
function computed_methods:peek()
  check_computed(self, "peek")
  return (reactive.value(self, false))
end

local NOT_SET = "a computed value cannot be set: set the signals that it is computed from"

local function refuse()
  error(NOT_SET, 2)
end

local REFUSED = { set = refuse, update = refuse }

function computed_mt:__index(key)
  if key == "value" then
    return (reactive.value(self, true))
  end
  return computed_methods[key] or REFUSED[key]
end

function computed_mt.__newindex(_, key)
  error(key == "value" and NOT_SET
    or ("a computed value has no field '%s'"):format(tostring(key)), 2)
end

function computed_mt:__call(...)
  if select("#", ...) > 0 then
    error(NOT_SET, 2)
  end
  return (reactive.value(self, true))
end

function computed_mt:__tostring()
  return self._version == 0 and text("computed value", { _name = self._name, _value = "not yet" })
    or text(self._failed and "failed computed value" or "computed value", self)
end

--- Make a value that follows others: what `fn` returns, which is called when somebody reads it and
-- something that it has read has changed. `fn` must not change anything, nor wait.
-- @tparam function fn
-- @tparam[opt] table given as for `signal`
function M.computed(fn, given)
  options.argument(1, "computed", fn, "function")
  given = options.check(2, "computed", given, OPTIONS)
  return setmetatable({
    _version = 0, _seen = 0, _readers = false, _last_reader = false,
    _equals = given.equals or false, _name = given.name or false, _gauge = false, _fn = fn,
    _sources = false, _tail = false, _run = 0, _fresh = 0,
    _marked = true, _stale = true, _busy = false, _failed = false, _watched = false,
    _effect = false, _value = nil,
  }, computed_mt)
end

-- --- reading aside -------------------------------------------------------------------------------

local function results(ok, ...)
  if not ok then
    error((...), 0)
  end
  return ...
end

--- Call `fn()`, and count nothing that it reads as read by the effect or computed value that runs.
-- @return its results
function M.untrack(fn)
  options.argument(1, "untrack", fn, "function")
  if not reactive.is_inside() then
    return fn()
  end
  return results(reactive.untracked(pcall, fn))
end

return M
