--- What a task passes to its caller on the way: `treadle.emit` here, `future:stream()` there.
-- A stream is a channel of the job's (src/bind/streams.h). Plain values go as a channel's do; the
-- rest, and who has the stream when, is this module's.
-- @module treadle.stream
local channel = require "treadle.channel"
local core = require "treadle.core"
local errors = require "treadle.error"
local future = require "treadle.future"
local loop = require "treadle.loop"
local options = require "treadle.options"
local share = require "treadle.share"

local STATE, PENDING, RESOLVED, OWN = core.STATE, core.PENDING, core.RESOLVED, core.OWN

--- What a future's field STREAM says. Nothing: nobody has asked. ASKED: somebody has. DROPPED:
-- values were dropped, since nobody had when there was no room for more. Else: the handle on what
-- was emitted before it was settled.
local STREAM, ASKED, DROPPED = future.STREAM, true, false
local STANDS_FOR, FOLLOWER = future.STANDS_FOR, future.FOLLOWER

local WEAK = { __mode = "v" }

local M = {}

share.kind("stream", {})

-- --- the task's side -----------------------------------------------------------------------------

local may_spin = loop.may_spin
local put, SENT = channel.inner.put, channel.inner.SENT

local NO_TASK = "treadle.emit: no task runs here. It is for tasks, and for the coroutines that "
  .. "they spawn, until they end"

--- What of `core.stream_send` is a wait: until there is room, or nobody wants the value any more.
-- @param is_own whether the wait is for a call of the own pool, which must not keep others out
-- @param looks whether the loop is to find out at its next turn that nobody has asked
local function wait_for_room(wait, number, is_own, looks)
  wait[OWN] = is_own or nil
  if looks then
    local ok, err = pcall(loop.defer, function() core.stream_look(wait, number) end)
    if not ok then
      core.wait_end(number)
      error(err, 0)
    end
  end
  local index, _, done = share.finish(nil, wait, number)
  return index and done
end

--- Send in any case.
local function send(value)
  loop.check()
  local sent, what, is_own, looks = core.stream_send(value)
  if what == "payload" then
    errors.raise("payload", sent, 3)
  elseif what == "none" then
    loop.check()
    error(NO_TASK, 3)
  elseif what ~= nil then
    sent = wait_for_room(sent, what, is_own, looks)
  end
  if not sent then
    loop.check()
  end
  return sent
end

--- The values of one emit, if there are several, as they travel.
local Several = {}
core.class("treadle.stream.several", Several)

--- Pass values to the caller of the task that runs here, who takes them from `future:stream()`.
-- Waits while there is no room for them.
-- @param value anything that a result could be, but nil
-- @param ... likewise, nils too: what a turn of the caller's loop is given besides
-- @treturn boolean whether somebody may want them
-- @raise kind "payload"; kind "cancelled" when the task was given up
function M.emit(value, ...)
  if value == nil then
    options.bad_argument(1, "emit",
      "a value expected, got nil, which would end the caller's loop")
  elseif select("#", ...) > 0 then
    value = setmetatable({ n = select("#", ...) + 1, value, ... }, Several)
  end
  if put and put(nil, value, may_spin() and 1 or 0) == SENT then
    return true
  end
  local sent = send(value) -- no tail call: it knows its caller's line
  return sent
end

-- --- the caller's side ---------------------------------------------------------------------------

local recv = channel.inner.recv

local DROPPED_TEXT = "values that the call has emitted were dropped: nobody had asked for its "
  .. "stream when there was no room for more. Ask for it right after the call, before you wait"

--- The waits of a call whose stream was asked for. The task may wait for somebody to go on with the
-- iterator: if that is garbage, because its loop was left, it need not.
local waits = {}
for _, name in ipairs { "await", "pawait", "wait" } do
  local plain = future.methods[name]
  waits[name] = function(self, ...)
    if self[STATE] == PENDING then
      collectgarbage()
    end
    return plain(self, ...)
  end
end

--- Whoever sleeps here for so long (s) while streams are open collects as well, for anything may
-- hang on a task that waits so; twice as long the next time, until a stream is asked for again.
-- But `RARELY` times as long as that takes at least.
local PATIENCE, RARELY = 0.02, 20
local least, patience, due = PATIENCE, PATIENCE, nil

local function sleep(plain, seconds)
  local now = core.now()
  if due - now < seconds and next(future.asked) then
    if due > now then
      plain(due - now)
      if core.now() < due then
        return
      end
      seconds = seconds - (due - now)
    end
    now = core.now()
    collectgarbage()
    local after = core.now()
    least = math.max(PATIENCE, RARELY * (after - now))
    patience = math.max(2 * patience, least)
    due = after + patience
    if loop.is_ready() then -- a finalizer was at work
      return
    end
  end
  plain(seconds)
end

--- Nobody else knows the handle from here on: when it is collected, no more values are wanted.
local function claim(self, handle)
  if not due then
    loop.set_sleeper(sleep)
  end
  patience = least
  due = core.now() + patience
  self[STREAM] = ASKED
  future.asked[handle] = true
  self.await, self.pawait, self.wait = waits.await, waits.pawait, waits.wait
  core.stream_ask(handle)
  if self[STATE] ~= PENDING then -- a finalizer has settled it meanwhile
    core.channel_close(handle)
  end
end

local function nothing()
  return nil, false
end

local function from_handle(handle)
  return function()
    return recv(handle)
  end
end

local source_of

--- From jobs that are made by and by.
local function from_others(self)
  local state = { source = source_of(self[STANDS_FOR]) }
  local known = setmetatable({ state }, WEAK)
  local changed -- a future, while somebody waits for another job; it holds the state then
  local function tell()
    if changed then
      changed:_resolve()
    end
  end
  self[FOLLOWER] = function(f)
    if known[1] then
      known[1].source = source_of(f)
      tell()
    end
  end
  future.at_end(self, tell)
  self[STREAM] = ASKED
  return function()
    while true do
      local source = state.source
      if source then
        local value, ok = source()
        if ok then
          return value, true
        elseif state.source == source then
          state.source = nil
        end
      elseif not future.is_pending(self) then
        return nil, false
      else
        changed = changed or future.new()
        loop.wait_for(changed)
        changed = nil
      end
    end
  end
end

--- What gives the values that the call of a future has emitted, or does: a function that returns
-- `value, true`, or nil, false at their end. nil: the future is no call's.
-- @param self false: a call whose job is not made yet
function source_of(self)
  local found = self and self[STREAM]
  if self == false then
    return nothing
  elseif found == DROPPED then
    return function() error(DROPPED_TEXT, 0) end
  elseif found then
    core.channel_close(found)
    local source = from_handle(found)
    self[STREAM] = ASKED
    return source
  elseif (self[future.SLOT] or 0) > 0 then
    local handle = core.stream_open(self)
    if handle == DROPPED then
      self[STREAM] = DROPPED
      return source_of(self)
    elseif not handle then
      self[STREAM] = ASKED
      return nothing
    end
    local source = from_handle(handle)
    claim(self, handle)
    return source
  elseif self[STANDS_FOR] ~= nil then
    return from_others(self)
  end
end

--- The end of the loop: as the call's.
local function finish(self)
  if self[STATE] == PENDING then
    loop.wait_for(self)
  end
  if self[STATE] ~= RESOLVED then
    future.seen(self)
    error(errors.add_site(future.error(self), 3), 0)
  end
end

local function iterator(self, source)
  return function()
    local value, ok = source()
    if ok then
      if type(value) == "table" and getmetatable(value) == Several then
        return unpack(value, 1, value.n)
      end
      return value
    end
    finish(self)
    return nil
  end
end

--- See `future:stream`.
function M.of(self)
  local found = self[STREAM]
  if found == ASKED then
    error("the stream of this call was asked for already: keep the iterator to go on with it", 3)
  elseif found == DROPPED then
    error(DROPPED_TEXT, 3)
  end
  local source = source_of(self)
  if self[STREAM] == DROPPED then
    error(DROPPED_TEXT, 3)
  elseif not source then
    error("this future is no call's, so that nothing is emitted for it: ask the one that the call "
      .. "returned, before it is chained or combined", 3)
  end
  return iterator(self, source)
end

-- Compiled code keeps alive each function that it calls, unless there are several of its kind: and
-- with an iterator lives the task that waits for it.
for _ = 1, 4 do
  iterator(nil, from_handle(nil))
end

return M
