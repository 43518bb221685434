--- Who listens to a channel: takes its messages and hands them on, one after the other.
-- While nobody listens they stay in the channel.
-- @classmod treadle.mailbox
local core = require "treadle.core"
local coroutine = require "treadle.coroutines"
local errors = require "treadle.error"
local future = require "treadle.future"
local listeners = require "treadle.listeners"
local loop = require "treadle.loop"

require "treadle.channel"

local M = {}

local methods = {}
local mt = { __name = "treadle.mailbox", __index = methods }

--- So many messages are handed on before others have their turn.
local TURN = 100

--- Fields: `listeners`; `failed(err)` is called with what a listener raises; `wait`, the number of
-- the wait for the next message; `busy`, while messages are handed on or that is about to begin;
-- `co`, the coroutine that does it; `over`: the channel is closed and empty; `rested`, functions to
-- call when nothing is left to hand on.
function M.new(ch, failed)
  return setmetatable({ channel = ch, failed = failed, listeners = {}, rested = {} }, mt)
end

--- For xpcall: an error object of what was raised.
function M.describe(err)
  return errors.new("task", errors.is(err) and err.message or errors.text(err), {
    value = err, traceback = debug.traceback("", 2):sub(2),
  })
end

local function hand_on(self, value)
  for _, entry in ipairs(listeners.copy(self.listeners)) do
    if not entry.gone then
      local ok, err = xpcall(entry.fn, M.describe, value)
      if not ok then
        self.failed(err)
      end
    end
  end
end

--- Call those who wait for the rest, if that is now.
local function look_for_rest(self)
  if self.over or #self.listeners == 0 and not self.busy then
    local list = self.rested
    self.rested = {}
    for _, fn in ipairs(list) do
      fn()
    end
  end
end

--- Run a function in a coroutine of nobody's: not of the task whose code may just run the loop.
local function spawn(...)
  if not core.worker then
    loop.spawn(future.new(), ...)
    return
  end
  local before = core.entry()
  core.enter(0)
  loop.spawn(future.new(), ...)
  core.enter(before)
end

--- As core.channel_recv; without memory as if nothing were there: the message is put back.
local function receive(ch, waits)
  local ok, value, what = pcall(core.channel_recv, ch, waits)
  if ok then
    return value, what
  end
end

local listen

--- In a coroutine: hand on what has been received, and what is there after it.
local function run(self, value, what)
  local left = TURN
  self.co = coroutine.running()
  repeat
    if what == true then
      hand_on(self, value)
    elseif what == "payload" then
      self.failed(errors.new("payload", value))
    else
      self.over = what == false
      break
    end
    left = left - 1
    if left > 0 and #self.listeners > 0 then
      value, what = receive(self.channel, false)
    end
  until left == 0 or #self.listeners == 0
  self.co = nil
  loop.defer(function()
    listen(self)
  end)
end

--- Go on with the next message, as soon as there is one; in a turn of the loop.
function listen(self)
  self.busy = false
  if self.over or #self.listeners == 0 then
    return look_for_rest(self)
  end
  local value, what = receive(self.channel, true)
  if type(what) ~= "userdata" then
    self.busy = true
    return spawn(run, self, value, what)
  end
  self.wait = what
  loop.add_waiter(value, function()
    if self.wait == what then
      self.wait, self.busy = nil, true
      local ok, _, message, kind = pcall(core.wait_take, what)
      spawn(run, self, message, ok and kind or nil)
    end
  end)
end

--- Call `fn(value)` for every message, in a coroutine.
-- @treturn function unsubscribes
function methods:on(fn)
  local unsubscribe = listeners.add(self.listeners, { fn = fn }, function()
    if self.wait and #self.listeners == 0 then
      core.wait_end(self.wait)
      self.wait = nil
    end
    look_for_rest(self)
  end)
  if not self.busy and not self.wait then
    self.busy = true
    loop.defer(function()
      listen(self)
    end)
  end
  return unsubscribe
end

--- Call `fn()` once all that came is handed on and the channel is closed, or nobody listens.
function methods:on_rest(fn)
  self.rested[#self.rested + 1] = fn
  look_for_rest(self)
end

--- Whether the code that runs here was called with a message.
function methods:is_running()
  return self.co ~= nil and self.co == coroutine.running()
end

return M
