--- Functions of this state that wait for their turn: at most so many run at once, in coroutines.
-- @classmod treadle.queue
local abort = require "treadle.abort"
local core = require "treadle.core"
local errors = require "treadle.error"
local future = require "treadle.future"
local listeners = require "treadle.listeners"
local loop = require "treadle.loop"
local options = require "treadle.options"

local M = {}

local methods = {}
local mt = { __name = "treadle.queue", __index = methods }

local QUEUE_OPTIONS = { limit = "count" }
local ADD_OPTIONS = { meta = "any", signal = abort.check }

--- What `status` can tell, and how.
local WHICH = { queued = true, active = true, completed = true, failed = true, total = true }
local HOW = { count = true, percent = true, raw = true }

function mt:__tostring()
  return ("queue (%d queued, %d active)"):format(self._queued, #self._lists.active)
end

local function check_self(self, name)
  if type(self) ~= "table" or getmetatable(self) ~= mt then
    options.misused(name, "queue", self, 2)
  end
end

--- Make a queue.
-- @tparam[opt] table given `limit`: how many functions may be active at once; the number of cores
-- unless told
function M.new(given)
  given = options.check(1, "queue", given, QUEUE_OPTIONS)
  return setmetatable({
    limit = given.limit or core.cores(),
    _lists = { active = {}, completed = {}, failed = {} },
    _all = {}, -- entries in the order of adding, the forgotten ones left out
    -- { entry, fn, outcome } by number; false: it was cancelled
    _waiting = {}, _first = 1, _last = 0,
    _queued = 0, -- how many of these there are
    _runs = {}, -- active entry -> { future, ended }
    _listeners = { race = {}, each = {}, all_settled = {} },
    _batch = {}, -- what has settled since it was last empty
    _drained = {}, -- futures of those who wait for that
    _count = 0, -- ever added
    _raced = false, -- one has completed since it was last empty
    _starting = false,
    _closed = false,
  }, mt)
end

-- --- listeners ---------------------------------------------------------------------------------

--- Run a listener in a coroutine, up to its first wait. What it raises is its own.
local function tell(self, name, ...)
  local list = {}
  for i, fn in ipairs(self._listeners[name]) do
    list[i] = fn
  end
  for _, fn in ipairs(list) do
    loop.spawn(future.new(), function(...)
      local ok, err = xpcall(fn, debug.traceback, ...)
      if not ok then
        listeners.complain(err, name)
      end
    end, ...)
  end
end

local function add_listener(self, name, fn)
  local list = self._listeners[name]
  list[#list + 1] = fn
  return self
end

--- Call `fn(value, entry)` for the first that completes since the queue was last empty.
-- @return the queue
function methods:race(fn)
  check_self(self, "race")
  options.argument(1, "race", fn, "function")
  return add_listener(self, "race", fn)
end

--- Call `fn(value, entry)` for each that completes.
-- @return the queue
function methods:each(fn)
  check_self(self, "each")
  options.argument(1, "each", fn, "function")
  return add_listener(self, "each", fn)
end

--- Call `fn(entries)` whenever the queue has become empty: with what has completed or failed since
-- it last was, in that order.
-- @return the queue
function methods:all_settled(fn)
  check_self(self, "all_settled")
  options.argument(1, "all_settled", fn, "function")
  return add_listener(self, "all_settled", fn)
end

-- --- entries -----------------------------------------------------------------------------------

local function is_empty(self)
  return self._queued == 0 and #self._lists.active == 0
end

--- If nothing is left, say so, once.
local function look_for_end(self)
  if not is_empty(self) then
    return
  end
  local batch, drained = self._batch, self._drained
  self._batch, self._drained, self._raced = {}, {}, false
  if #batch > 0 then
    tell(self, "all_settled", batch)
  end
  for _, f in ipairs(drained) do
    f:_resolve()
  end
end

--- An entry has completed or failed. The listeners hear of it in the next turn, and of the end in
-- the one after that: those who have waited for its future, or have just begun to, may add more
-- before the queue counts as empty.
local function settle(self, entry, state)
  entry.state = state
  entry.duration = entry.started and core.now() - entry.started or nil
  local list, batch = self._lists[state], self._batch
  list[#list + 1] = entry
  batch[#batch + 1] = entry
  loop.defer(function()
    if state == "completed" then
      if not self._raced then
        self._raced = true
        tell(self, "race", entry.value, entry)
      end
      tell(self, "each", entry.value, entry)
    end
    if is_empty(self) then
      loop.defer(function()
        look_for_end(self)
      end)
    end
  end)
end

local function fail(self, entry, outcome, err)
  entry.error = err
  outcome:_reject(err)
  if #self._listeners.all_settled > 0 then -- they are told
    future.seen(outcome)
  end
  settle(self, entry, "failed")
end

--- Whether an entry was active until now.
local function leave_active(self, entry)
  local active = self._lists.active
  for i, other in ipairs(active) do
    if other == entry then
      table.remove(active, i)
      return true
    end
  end
  return false
end

local start_some

--- Run an entry's function, up to its first wait.
local function start(self, entry, fn, outcome)
  local active = self._lists.active
  entry.state, entry.started = "active", core.now()
  active[#active + 1] = entry
  future.set_upstream(outcome, nil)
  local run = loop.spawn(future.new(), fn)
  local function ended()
    self._runs[entry] = nil
    if not leave_active(self, entry) then
      return
    elseif run[core.STATE] == core.RESOLVED then
      entry.value = future.value(run)
      outcome:_resolve(future.results(run))
      settle(self, entry, "completed")
    else
      fail(self, entry, outcome, future.error(run))
    end
    start_some(self)
  end
  if future.is_pending(run) then
    self._runs[entry] = { future = run, ended = ended }
    future.set_upstream(outcome, function(reason) run:cancel(reason) end)
    future.on_settled(run, ended)
    if not future.is_pending(outcome) then -- it has cancelled itself
      run:cancel(future.error(outcome))
    end
  else
    future.seen(run)
    ended()
  end
end

--- Start as many as may run. What ends at once makes room for the next, here.
function start_some(self)
  if self._starting then
    return
  end
  self._starting = true
  while self._queued > 0 and #self._lists.active < self.limit do
    local next_one = self._waiting[self._first]
    self._waiting[self._first] = nil
    self._first = self._first + 1
    if next_one then
      self._queued = self._queued - 1
      start(self, next_one.entry, next_one.fn, next_one.outcome)
    end
  end
  self._starting = false
end

--- Run `fn()` in a coroutine as soon as fewer than `limit` are active, in the order of adding.
-- @tparam function fn
-- @tparam[opt] table given `meta`, for the entry; `signal`, which cancels it
-- @return a future of its results
function methods:add(fn, given)
  check_self(self, "add")
  options.argument(1, "add", fn, "function")
  given = options.check(2, "add", given, ADD_OPTIONS)
  local outcome = future.new()
  if self._closed then
    outcome:_reject(errors.new("closed", "the queue is closed"))
    return outcome
  end
  local signal = given.signal and abort.signal_of(given.signal)
  if signal and signal.aborted then
    return signal:bind(outcome)
  end
  self._count = self._count + 1
  local entry = { id = self._count, meta = given.meta, state = "queued" }
  self._all[#self._all + 1] = entry
  local number = self._last + 1
  self._last, self._queued = number, self._queued + 1
  self._waiting[number] = { entry = entry, fn = fn, outcome = outcome }
  future.set_upstream(outcome, function()
    self._waiting[number] = false
    self._queued = self._queued - 1
    fail(self, entry, outcome, future.error(outcome))
  end)
  start_some(self)
  return signal and signal:bind(outcome) or outcome
end

-- --- what there is -----------------------------------------------------------------------------

--- Take note of the functions that have ended in this turn, of which the queue is yet to hear.
local function look_at_active(self)
  local over = {}
  for _, entry in ipairs(self._lists.active) do
    local run = self._runs[entry]
    if run and not future.is_pending(run.future) then
      over[#over + 1] = run
    end
  end
  for _, run in ipairs(over) do
    run.ended()
  end
end

--- The entries of one kind: those that wait and all of them in the order of adding, the active ones
-- in that of their start, the others in that of their end.
local function entries_of(self, which)
  local found = {}
  if which == "queued" then
    for i = self._first, self._last do
      if self._waiting[i] then
        found[#found + 1] = self._waiting[i].entry
      end
    end
  else
    for i, entry in ipairs(which == "total" and self._all or self._lists[which]) do
      found[i] = entry
    end
  end
  return found
end

local function count_of(self, which)
  return which == "queued" and self._queued or #(self._lists[which] or self._all)
end

local function check_choice(index, value, known)
  options.argument(index, "status", value, "string", 2)
  if not known[value] then
    options.bad_argument(index, "status", ("unknown '%s', did you mean '%s'?"):format(value,
      options.nearest(value, known)), 2)
  end
end

--- How the functions stand.
-- @tparam[opt="total"] string which "queued", "active", "completed", "failed", "total"
-- @tparam[opt="count"] string how "count"; "percent" of the total, 0 to 100; "raw": a list of
-- entries
function methods:status(which, how)
  check_self(self, "status")
  which = which == nil and "total" or which
  how = how == nil and "count" or how
  check_choice(1, which, WHICH)
  check_choice(2, how, HOW)
  look_at_active(self)
  if how == "raw" then
    return entries_of(self, which)
  elseif how == "count" then
    return count_of(self, which)
  end
  return #self._all > 0 and 100 * count_of(self, which) / #self._all or 0
end

--- Whether a function that is added now would start now.
function methods:available()
  check_self(self, "available")
  look_at_active(self)
  return not self._closed and self._queued == 0 and #self._lists.active < self.limit
end

--- Forget what has completed or failed: it does not count in `status` any more.
function methods:clear()
  check_self(self, "clear")
  local left = {}
  for _, entry in ipairs(self._all) do
    if entry.state == "queued" or entry.state == "active" then
      left[#left + 1] = entry
    end
  end
  self._all, self._lists.completed, self._lists.failed = left, {}, {}
end

--- A future that resolves when nothing is queued or active, and the listeners have been told.
function methods:drained()
  check_self(self, "drained")
  local f = future.new()
  if is_empty(self) and #self._batch == 0 then
    f:_resolve()
  else
    self._drained[#self._drained + 1] = f
  end
  return f
end

--- Take no more functions, wait until those that were added have ended.
function methods:close()
  check_self(self, "close")
  self._closed = true
  self:drained():await()
end

return M
