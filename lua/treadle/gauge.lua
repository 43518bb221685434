--- The signals of a pool: how many workers, waiting and running calls it has.
-- Its three are read together, so that nobody sees numbers that never were. While nobody watches
-- them, they are read when somebody asks: once for all that is computed for that. While an effect
-- depends on one, the pool tells the home when something has changed, at most once a turn of its
-- loop, which then reads them; whoever runs meanwhile sees what was read last.
-- @module treadle.gauge
local core = require "treadle.core"
local future = require "treadle.future"
local loop = require "treadle.loop"
local options = require "treadle.options"
local reactive = require "treadle.reactive"
local records = require "treadle.records"

local M = {}

local rawset = rawset

-- --- the three of a pool -------------------------------------------------------------------------

--- Fields: `_record`, the pool's; `_workers`, `_queued`, `_inflight`, the signals; `_watched`, how
-- many of these somebody watches; `_frame`, for which run they were read last; `_is_told`, whether
-- a look is due.
local group_methods = {}
local group_mt = { __index = group_methods }

local function count_of(record)
  local handle = records.handle_of[record]
  if not handle or not future.is_pending(record.stopped) then
    return 0, 0, 0
  end
  return core.gauges(handle)
end

local function set(source, value)
  if source._value ~= value then
    rawset(source, "_value", value)
    reactive.change(source)
  end
end

--- Read them.
local function read(self)
  local workers, queued, running = count_of(self._record)
  set(self._workers, workers)
  set(self._queued, queued)
  set(self._inflight, running)
end

--- Something has changed, or may have. What runs now is to see nothing else than before.
function group_methods:changed()
  if self._watched == 0 then
    return
  elseif reactive.is_inside() then
    self:tell()
  else
    read(self)
  end
end

--- The same, to be looked at in a turn of the loop: not while C hands over its news, which are told
-- again as soon as somebody has looked.
function group_methods:tell()
  if self._watched > 0 and not self._is_told then
    loop.defer(function()
      self._is_told = false
      self:changed()
    end)
    self._is_told = true
  end
end

--- Somebody reads one of them, in that run.
function group_methods:look(frame)
  if self._watched == 0 and self._frame ~= frame then
    self._frame = frame
    read(self)
  end
end

local function listen(self, on)
  local handle = records.handle_of[self._record]
  if handle then
    core.watch_gauges(handle, on)
    if on then
      core.pool_watch(handle, true) -- who was just about to tell did not know of this yet
    end
  end
end

--- Somebody watches one more of them.
function group_methods:watch()
  self._watched = self._watched + 1
  if self._watched == 1 then
    listen(self, true)
    self:tell() -- since they were read
  end
end

function group_methods:unwatch()
  self._watched = self._watched - 1
  if self._watched == 0 then
    listen(self, false)
  end
end

-- --- one of them ---------------------------------------------------------------------------------

local methods = {}
local mt = { __name = "treadle.pool.signal" }

local function check_self(self, name)
  if type(self) ~= "table" or getmetatable(self) ~= mt then
    options.misused(name, "signal of a pool", self, 2)
  end
end

local function look(self)
  local frame = reactive.frame()
  if frame then
    self._gauge:look(frame)
  else
    read(self._gauge)
  end
end

local function get(self)
  look(self)
  reactive.read(self)
  return self._value
end

--- Its value.
function methods:get()
  check_self(self, "get")
  return (get(self))
end

--- Its value, without becoming its reader.
function methods:peek()
  check_self(self, "peek")
  look(self)
  return self._value
end

local NOT_SET = "a signal of a pool cannot be set: it says what the pool does"

local function refuse()
  error(NOT_SET, 2)
end

local REFUSED = { set = refuse, update = refuse }

function mt:__index(key)
  if key == "value" then
    return (get(self))
  end
  return methods[key] or REFUSED[key]
end

function mt.__newindex(_, key)
  error(key == "value" and NOT_SET
    or ("a signal of a pool has no field '%s'"):format(tostring(key)), 2)
end

function mt:__call(...)
  if select("#", ...) > 0 then
    error(NOT_SET, 2)
  end
  return (get(self))
end

function mt:__tostring()
  return ("signal of a pool '%s' (%d)"):format(self._name, self:peek())
end

local function new(group, name)
  return setmetatable({
    _version = 1, _seen = 0, _readers = false, _last_reader = false,
    _equals = false, _name = name, _gauge = group, _fn = false, _value = 0,
  }, mt)
end

local NAMES = { workers = "_workers", queued = "_queued", inflight = "_inflight" }

--- The signals of the pool of a record.
function M.signals(record)
  if not record.gauges then
    reactive.use_gauges()
    local group = setmetatable({
      _record = record, _watched = 0, _frame = -1, _is_told = false,
    }, group_mt)
    group._workers, group._queued = new(group, "workers"), new(group, "queued")
    group._inflight = new(group, "inflight")
    record.gauges = group
  end
  return setmetatable({}, {
    __name = "treadle.pool.signals",
    __index = function(_, name)
      return NAMES[name] and record.gauges[NAMES[name]] or error(
        ("a pool has no signal '%s': it has workers, queued, inflight"):format(tostring(name)), 2)
    end,
    __newindex = function() error("the signals of a pool cannot be set", 2) end,
  })
end

return M
