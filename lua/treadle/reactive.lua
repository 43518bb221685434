--- The graph of reactive values: who reads whom, what is out of date, and what brings it up to
-- date.
--
-- A *source* is what can be read, a signal or a computed value; an *observer* is what reads: a
-- computed value or an effect. Each read of a source in a run of an observer is a link. The links
-- of an observer stand in the order of its reads; a run goes along those of the run before and
-- keeps the ones that are still right, so that what reads the same as ever makes nothing new.
--
-- R1 An observer is *watched* if it is an effect, or if a watched observer reads it. Only the links
--    of watched observers are entered at their sources. So a source refers to nobody but who leads
--    to an effect, and computed values that nobody holds are collected.
-- R2 A change marks, downwards: it enters no value, and stops at what is marked. What is watched
--    and not marked is up to date. An unwatched one is marked always: it is up to date if it was
--    found so, `_fresh`, at the present time of the clock, which each change advances.
-- R3 A value is brought up to date when it is read, upwards: its sources first, in the order of the
--    reads. It is computed anew if one of them has another version than it had when it was read: so
--    once at most, and not if they turned out equal.
-- R4 No walk recurses, whatever the depth of the graph. Only functions of the script do, that read
--    what was never computed before: then each LEVELS of them get a coroutine, so a stack, of their
--    own.
-- R5 While something is computed here, no code of others runs between its lines: it may not wait
--    (loop.forbid), and the outermost run is entered through C, so that it cannot yield.
--
-- Sources of the algorithm: M. Allen, "Reactively" (marks and versions); J. Viikari, "Signal
-- Boosting" (preactjs.com/blog/signal-boosting: versions, links used again, who is not watched is
-- not entered); J. Soh, alien-signals (walks without recursion).
-- @module treadle.reactive
local core = require "treadle.core"
local coroutine = require "treadle.coroutines"
local loop = require "treadle.loop"

core.open "signals"
local call_steadily = core.call_steadily

local M = {}

--- Fields of a source: `_value`, `_version`, `_readers` and `_last_reader` (links), `_seen` (the
-- number of the last run that read it), `_gauge` (what it is a part of, if it comes from outside of
-- the graph: see treadle.gauge). Of an observer: `_fn`, `_sources` (links), `_tail` (the last one
-- that this run has made or kept), `_run` (this run's number), `_marked`, `_watched`, `_busy` (on
-- the stack). Of computed values, too: `_fresh`, `_failed` (`_value` is an error), `_stale` (run it
-- in any case). Effects have `_effect`.
-- Of a link: `source`, `reader`, `version`, `next` (of the observer), `before` and `after` (of the
-- source).

--- What the clock of changes shows.
local clock = 1
--- The observer whose reads are tracked.
local current = false
--- The number of the latest run.
local runs = 0
--- What is looked at or runs now, outermost first, and for each the link that is looked at.
local stack, at, depth = {}, {}, 0
--- How many computed values run now, one within another.
local computing = 0
--- How often something was entered from outside, while values from outside of the graph are used.
local frame, has_gauges = 0, false

--- How many computed values share a stack: it has 65,500 slots, a function at most 250.
local LEVELS = 100

--- Told of each effect that was marked.
local on_marked

--- Set that function.
function M.on_marked(fn)
  on_marked = fn
end

-- --- who reads whom ------------------------------------------------------------------------------

local function enter(link)
  local source = link.source
  local last = source._last_reader
  link.before = last
  if last then
    last.after = link
  else
    source._readers = link
  end
  source._last_reader = link
end

--- Whether it was the last one.
local function leave(link)
  local source, before, after = link.source, link.before, link.after
  if before then
    before.after = after
  else
    source._readers = after
  end
  if after then
    after.before = before
  else
    source._last_reader = before
  end
  link.before, link.after = false, false
  return not source._readers
end

--- Enter this link of a watched observer, and those after it; whom it reads is watched from now on,
-- too (R1).
local function watch(link)
  local list, n = nil, 0
  repeat
    local source = link.source
    local is_first = not source._readers
    enter(link)
    if is_first and source._fn then
      source._watched, source._marked = true, false -- it has just been read
      list = list or {}
      n = n + 1
      list[n] = source
    elseif is_first and source._gauge then
      source._gauge:watch()
    end
    link = link.next
    while not link and n > 0 do
      link = list[n]._sources
      list[n] = nil
      n = n - 1
    end
  until not link
end

--- Take this link and those after it out of a watched observer's sources.
local function unwatch(link)
  local list, n = nil, 0
  repeat
    local source = link.source
    if leave(link) then
      if source._fn then
        source._fresh = source._marked and 0 or clock
        source._watched, source._marked = false, true
        list = list or {}
        n = n + 1
        list[n] = source
      elseif source._gauge then
        source._gauge:unwatch()
      end
    end
    link = link.next
    while not link and n > 0 do
      link = list[n]._sources
      list[n] = nil
      n = n - 1
    end
  until not link
end

--- The observer that runs has read this source.
local function track(source)
  local reader = current
  if source._seen == reader._run then
    return
  end
  source._seen = reader._run
  local tail = reader._tail
  local link = reader._sources
  if tail then
    link = tail.next
  end
  if link and link.source == source then
    link.version = source._version
    reader._tail = link
    return
  end
  local following = link
  link = {
    source = source, reader = reader, version = source._version,
    next = false, before = false, after = false,
  }
  if reader._watched then
    watch(link)
  end
  link.next = following
  if tail then
    tail.next = link
  else
    reader._sources = link
  end
  reader._tail = link
end

--- What the run before has read and this one has not is no source any more.
local function drop_rest(reader)
  local tail = reader._tail
  local link = reader._sources
  if tail then
    link = tail.next
    tail.next = false
  else
    reader._sources = false
  end
  if link and reader._watched then
    unwatch(link)
  end
end

--- An effect reads nothing any more.
function M.release(reader)
  reader._tail = false
  drop_rest(reader)
end

-- --- reading aside -------------------------------------------------------------------------------

local function go_on(observer, ...)
  current = observer
  return ...
end

--- Call a function that raises nothing, `pcall` or the like, so that no read in it counts.
local function untracked(call, ...)
  local observer = current
  current = false
  return go_on(observer, call(...))
end
M.untracked = untracked

--- Whether two values are equal for a source that has a function of its own for that.
function M.is_equal(source, a, b)
  local ok, answer = untracked(pcall, source._equals, a, b)
  if not ok then
    error(answer, 0)
  end
  return answer
end

-- --- what is out of date -------------------------------------------------------------------------

local marked, top = {}, 0

--- Mark who reads a source, and who reads those (R2).
local function mark(source)
  local link, base = source._readers, top
  while true do
    while link do
      local reader = link.reader
      if not reader._marked then
        reader._marked = true
        if reader._effect then
          on_marked(reader)
        else
          top = top + 1
          marked[top] = reader
        end
      end
      link = link.after
    end
    if top <= base then
      return
    end
    link = marked[top]._readers
    marked[top] = false
    top = top - 1
  end
end

--- A source has another value than before.
function M.change(source)
  source._version = source._version + 1
  clock = clock + 1
  if source._readers then
    mark(source)
  end
end

-- --- bringing it up to date ----------------------------------------------------------------------

local function is_same(a, b)
  return rawequal(a, b) or type(a) == "number" and a ~= a and type(b) == "number" and b ~= b
end
M.is_same = is_same

--- Whether a computed value has the value that it should.
local function is_fresh(self)
  return (not self._marked or self._fresh == clock) and not self._stale
end

local function push(observer)
  observer._busy = true
  depth = depth + 1
  stack[depth], at[depth] = observer, observer._sources
end

local function pop()
  local observer = stack[depth]
  observer._busy = false
  stack[depth], at[depth] = false, false
  depth = depth - 1
end

--- What stands on the stack above `base` was left, by an error or by a coroutine.
local function cut(base)
  while depth > base do
    pop()
  end
end

local LEFT = "coroutine.yield in a computed value or an effect, outside of a coroutine that it made"

local function on_own_stack(fn)
  local co = coroutine.create(fn)
  local ok, value = coroutine.resume(co)
  if coroutine.status(co) ~= "dead" then
    return false, LEFT
  end
  return ok, value
end

--- What `fn` gives for a computed value, and whether that is what it was before.
local function take(self, ok, value)
  local is_equal = self._version > 0 and self._failed == not ok
  if is_equal and ok and self._equals then
    ok, is_equal = untracked(pcall, self._equals, self._value, value)
    if not ok then
      value, is_equal = is_equal, false
    end
  else
    is_equal = is_equal and is_same(self._value, value)
  end
  if not is_equal then
    rawset(self, "_value", value)
    self._failed = not ok
    self._version = self._version + 1
  end
end

--- Run an observer that is on top of the stack: `call` calls its function, and raises nothing.
-- @return what `call` returns, two values
local function run(self, call, ...)
  local outer, base = current, depth
  local before = loop.forbid()
  runs = runs + 1
  self._run, self._tail = runs, false
  current = self
  local ok, value = call(self._fn, ...)
  if stack[base] ~= self then -- left by a coroutine of the script's, and resumed
    error(LEFT, 0)
  end
  cut(base)
  current = outer
  loop.allow(before)
  drop_rest(self)
  return ok, value
end

--- Run an effect.
function M.run(self, call, ...)
  push(self)
  local ok, value = run(self, call, ...)
  pop()
  return ok, value
end

local function compute(self)
  local level = computing + 1
  computing = level
  self._marked, self._fresh, self._stale = true, 0, false -- not up to date while it runs
  local ok, value = run(self, level % LEVELS == 0 and on_own_stack or pcall)
  take(self, ok, value)
  self._marked, self._fresh = not self._watched, clock
  computing = level - 1
end

--- Look whether the sources of what is on top of the stack have changed; for each that is not up to
-- date itself, that comes first (R3). Computes what has to be.
-- @return whether an effect is to run; it was the bottom one then
local function settle(base)
  local done -- what was looked at last; it may be stale again
  while true do
    local self, link = stack[depth], at[depth]
    local source = link and link.source
    local is_over, is_changed = not link or self._stale, self._stale
    if not is_over then
      if source._fn and source ~= done and not is_fresh(source) and not source._busy then
        push(source)
      else
        if source._gauge then
          source._gauge:look(frame)
        end
        is_changed = source._version ~= link.version or source._busy
        is_over = is_changed
        at[depth] = link.next
      end
    end
    if is_over then
      if self._effect then
        pop()
        return is_changed
      elseif is_changed then
        compute(self)
      else
        self._marked, self._fresh = not self._watched, clock
      end
      pop()
      done = self
      if depth <= base then
        return false
      end
    end
  end
end

local function settle_one(self)
  local base = depth
  push(self)
  return settle(base)
end

--- Call `fn(x)` from outside: it cannot yield, and leaves no trace (R5).
-- @return what it returns, one value
local function from_outside(fn, x)
  if has_gauges then
    frame = frame + 1
    clock = clock + 1
  end
  local before = loop.forbid()
  local ok, value = call_steadily(fn, x)
  loop.allow(before)
  if depth > 0 then -- not enough memory
    cut(0)
    current, computing = false, 0
  end
  if not ok then
    error(value, 0)
  end
  return value
end

--- Call `fn(x)`, which computes or runs something.
function M.inside(fn, x)
  if depth == 0 then
    return from_outside(fn, x)
  end
  return fn(x)
end

--- Whether a marked effect is to run, because one of its sources has changed.
M.is_due = settle_one

-- --- cycles --------------------------------------------------------------------------------------

local NAMES = { computed = "computed value", effect = "effect" }

--- What a message calls an observer.
function M.describe(self)
  local info = debug.getinfo(self._fn, "S")
  return ("%s %s(%s:%d)"):format(NAMES[self._effect and "effect" or "computed"],
    self._name and ("'%s' "):format(self._name) or "", info.short_src, info.linedefined)
end

--- How many of a cycle a message names.
local NAMED = 8

--- The message for a read of what is being computed.
local function cycle(self)
  local list, first = {}, depth
  while stack[first] ~= self do
    first = first - 1
  end
  for i = first, depth do
    if #list < NAMED or i == depth then
      list[#list + 1] = M.describe(stack[i])
    elseif #list == NAMED then
      list[#list + 1] = "..."
    end
  end
  list[#list + 1] = #list == 1 and "itself" or "the first one"
  return "a cycle: " .. table.concat(list, " reads ")
end

-- --- reading -------------------------------------------------------------------------------------

--- The present value of a computed value, or its error.
-- @param is_read whether it counts as a read of the observer that runs
function M.value(self, is_read)
  if has_gauges and depth == 0 and not self._watched or not is_fresh(self) then
    if self._busy then
      local reader = stack[depth] -- looks again, though it does not read this one
      reader._stale = not reader._effect
      error(cycle(self), 3)
    elseif depth == 0 then
      from_outside(settle_one, self)
    else
      settle_one(self)
    end
  end
  if is_read and current then
    track(self)
  end
  if self._failed then
    error(self._value, 0)
  end
  return self._value
end

--- The observer that runs reads a signal.
function M.read(source)
  if current then
    track(source)
  end
end

--- Whether something is computed or runs; whether a computed value does.
function M.is_inside()
  return depth > 0
end

function M.is_computing()
  return computing > 0
end

-- --- what comes from outside of the graph --------------------------------------------------------

--- From now on values are read that change by themselves: what is not watched may be out of date
-- whenever it is read from outside.
function M.use_gauges()
  has_gauges = true
end

--- The number of what was entered from outside, nil when nothing runs.
function M.frame()
  return depth > 0 and frame or nil
end

return M
