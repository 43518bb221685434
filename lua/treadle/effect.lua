--- Functions that run when what they have read has changed.
-- Those that are due stand in a queue. They run at the next turn of the loop, at a flush or at the
-- end of a batch: in the order in which they were made, so that those that an effect has made come
-- after it.
-- @module treadle.effect
local core = require "treadle.core"
local errors = require "treadle.error"
local loop = require "treadle.loop"
local options = require "treadle.options"
local reactive = require "treadle.reactive"

local M = {}

--- How often an effect may run in one flush.
local LIMIT = 100

--- The effects that are not disposed of: they stay, whoever else knows them.
local roots = {} -- luacheck: ignore 241 (it holds them)

--- An effect's fields, beside those of every observer (treadle.reactive): `_effect`, its number;
-- `_cleanup`; `_on_error`; `_flush` and `_count`, how often it has run in that flush; `_parent`,
-- and in the parent's list, newest first, `_older` and `_newer`; `_child`, its own newest.
local made = 0
--- The effect that runs.
local owner = false

local queue, queued = {}, 0
local spare = {}
local is_flushing, is_scheduled, batches = false, false, 0
local flushes = 0

-- --- what goes wrong -----------------------------------------------------------------------------

--- What an effect raised, with the place.
local function with_traceback(err)
  return { err = err, traceback = debug.traceback("", 2):gsub("^\n", "") }
end

local function print_error(self, err, traceback)
  errors.tell(("error in an %s: %s%s"):format(reactive.describe(self), errors.text(err),
    traceback and "\n" .. traceback or ""))
end

local function report(self, err, traceback)
  if not self._on_error then
    print_error(self, err, traceback)
    return
  end
  local ok, other = pcall(self._on_error, err)
  if not ok then
    print_error(self, err, traceback)
    print_error(self, other)
  end
end

--- A failure of xpcall with that handler; without memory it gives no table.
local function report_failure(self, failure)
  if type(failure) == "table" and failure.traceback then
    report(self, failure.err, failure.traceback)
  else
    report(self, failure)
  end
end

-- --- the end of one ------------------------------------------------------------------------------

local function call_cleanup(self)
  local cleanup = self._cleanup
  self._cleanup = false
  local before, outer = loop.forbid(), owner
  owner = false
  local ok, failure = reactive.untracked(xpcall, cleanup, with_traceback)
  owner = outer
  loop.allow(before)
  if not ok then
    report_failure(self, failure)
  end
end

local function dispose(self)
  if self._disposed then
    return
  end
  self._disposed = true
  roots[self] = nil
  local parent, older, newer = self._parent, self._older, self._newer
  if newer then
    newer._older = older
  elseif parent then
    parent._child = older
  end
  if older then
    older._newer = newer
  end
  self._parent, self._older, self._newer = false, false, false
  while self._child do
    dispose(self._child)
  end
  if not self._busy then -- else its run does, at its end
    reactive.release(self)
  end
  if self._cleanup then
    reactive.inside(call_cleanup, self)
  end
end

-- --- a run ---------------------------------------------------------------------------------------

local function run(self)
  while self._child do
    dispose(self._child)
  end
  if self._cleanup then
    call_cleanup(self)
  end
  if self._disposed then -- by that
    return
  end
  local outer = owner
  owner = self
  local ok, result = reactive.run(self, xpcall, with_traceback)
  owner = outer
  if ok and type(result) == "function" then
    self._cleanup = result
  end
  if self._disposed then
    while self._child do
      dispose(self._child)
    end
    reactive.release(self)
    if self._cleanup then
      call_cleanup(self)
    end
  end
  if not ok then
    report_failure(self, result)
  end
end

-- --- the queue -----------------------------------------------------------------------------------

local function is_older(a, b)
  return a._effect < b._effect
end

local function sort(list, n)
  for i = 2, n do
    if list[i]._effect < list[i - 1]._effect then
      table.sort(list, is_older)
      return
    end
  end
end

local function run_if_due(self)
  self._marked = false
  local is_due = not self._disposed and reactive.is_due(self)
  if self._disposed then -- maybe by what was computed for it
    reactive.release(self)
    return
  elseif not is_due then
    return
  end
  if self._flush ~= flushes then
    self._flush, self._count = flushes, 0
  end
  self._count = self._count + 1
  if self._count > LIMIT then
    report(self, ("it has run %d times in a row: it changes what it reads"):format(LIMIT))
    return
  end
  run(self)
end

--- Run what is due, and what that makes due, round after round.
local function run_queue()
  while queued > 0 do
    local list, n = queue, queued
    queue, queued, spare = spare, 0, list
    sort(list, n)
    for i = 1, n do
      local self = list[i]
      list[i] = nil
      run_if_due(self)
    end
  end
end

local function flush()
  is_flushing, owner = true, false
  flushes = flushes + 1
  local ok, err = pcall(reactive.inside, run_queue)
  is_flushing = false
  if not ok then -- not enough memory: what was left comes with the next flush
    for i, self in pairs(spare) do
      spare[i] = nil
      queued = queued + 1
      queue[queued] = self
    end
    error(err, 0)
  end
end

local function may_flush()
  return queued > 0 and not is_flushing and batches == 0 and not reactive.is_inside()
end

local function turn()
  is_scheduled = false
  if may_flush() then
    flush()
  end
end

local function schedule()
  if not is_scheduled then
    loop.defer(turn)
    is_scheduled = true
  end
end

reactive.on_marked(function(self)
  queued = queued + 1
  queue[queued] = self
  if not is_flushing then
    schedule()
  end
end)

-- --- what scripts see ----------------------------------------------------------------------------

local OPTIONS = { on_error = "callable", name = "name" }

--- Run `fn` now, and again whenever something has changed that it read the last time. What it
-- returns, if it is a function, is called before it runs again, and when it is disposed of. `fn`
-- must not wait.
-- @tparam function fn
-- @tparam[opt] table given `on_error(err)`, called with what it raises (without: it is printed on
-- stderr); `name` for messages
-- @treturn function disposes of the effect
function M.effect(fn, given)
  options.argument(1, "effect", fn, "function")
  given = options.check(2, "effect", given, OPTIONS)
  if reactive.is_computing() then
    error("a computed value cannot make an effect: it may be computed at any time, or never", 2)
  end
  made = made + 1
  owner = reactive.is_inside() and owner
  local self = {
    _fn = fn, _sources = false, _tail = false, _run = 0,
    _marked = false, _stale = false, _busy = false, _watched = true,
    _effect = made, _name = given.name or false, _on_error = given.on_error or false,
    _cleanup = false, _flush = 0, _count = 0, _disposed = false,
    _parent = owner, _older = false, _newer = false, _child = false,
  }
  if owner then
    local older = owner._child
    self._older = older
    if older then
      older._newer = self
    end
    owner._child = self
  end
  roots[self] = true
  reactive.inside(run, self)
  return function() dispose(self) end
end

local function end_batch(before, ok, ...)
  batches = batches - 1
  loop.allow(before)
  if may_flush() then
    flush()
  end
  if not ok then
    error((...), 0)
  end
  return ...
end

--- Call `fn()`, and run the effects that are due then, at its end: those of all its changes at
-- once. Batches nest; the outermost counts. `fn` must not wait.
-- @return its results
function M.batch(fn)
  options.argument(1, "batch", fn, "function")
  local before = loop.forbid()
  batches = batches + 1
  return end_batch(before, core.call_steadily(fn))
end

--- Run the effects that are due now, not at the next turn of the loop. Inside an effect, a computed
-- value or a batch this does nothing: theirs come after them.
function M.flush()
  if may_flush() then
    flush()
  end
end

return M
