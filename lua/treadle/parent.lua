--- In a worker: who made it. A thread exchanges messages with its parent; a worker of a pool says
-- something to whoever listens to the pool.
-- @classmod treadle.parent
local core = require "treadle.core"
local errors = require "treadle.error"
local future = require "treadle.future"
local loop = require "treadle.loop"
local options = require "treadle.options"

core.open "parent"

local M = {}

local methods = {}
local mt = { __name = "treadle.parent", __index = methods }

--- What scripts see as `treadle.parent`.
M.parent = setmetatable({}, mt)

--- Of a thread: the channels from its parent and to it, who listens, and what it runs at its end.
local inbox, outbox, mailbox, box, on_close

function mt.__tostring()
  return ("parent of %s '%s'"):format(inbox and "thread" or "pool",
    tostring(require("treadle.worker").info.name))
end

local function check_self(self, name)
  if self ~= M.parent then
    options.misused(name, "parent", self, 2)
  end
end

local function check_thread()
  if not inbox then
    error("only a thread has messages from its parent: make it with treadle.thread(...)", 3)
  end
end

--- Send one value to the parent; never waits. From a pool's worker it reaches those who listen to
-- the pool's event "message", and nobody else.
-- @param value anything that a call could take as an argument
-- @raise kind "payload"; "closed" when the parent is gone
function methods:send(value)
  check_self(self, "send")
  if outbox then
    if not outbox:try_send(value) then
      errors.raise("closed", "the parent has left this thread")
    end
  elseif core.is_heard() then
    local text, what = core.say(value, "message")
    if what then
      errors.raise("payload", text)
    end
  end
end

--- Receive what the parent has sent: wait until there is something.
-- @tparam[opt] number timeout seconds; without it there is no limit
-- @return the value, true; or nil, false and why: "closed" or "timeout"
function methods:recv(timeout)
  check_self(self, "recv")
  if timeout ~= nil then
    options.seconds(1, "recv", timeout)
  end
  check_thread()
  if require("treadle.worker").is_booting() then
    error("nothing comes before the module is loaded and init has run: use treadle.worker.data", 2)
  end
  return inbox:recv(timeout)
end

--- Tell the parent of an error that no call carries. What cannot travel is left out.
local function report(err)
  local ok, _, refused = pcall(core.say, err, "error")
  if not ok or refused then
    pcall(core.say, errors.new(err.kind, err.message, { traceback = err.traceback }), "error")
  end
end

--- Call `fn(value)` for every message of the parent's, in a coroutine: the next one is taken when
-- all who listen have returned.
-- @treturn function unsubscribes
function methods:on(event, fn)
  check_self(self, "on")
  options.argument(1, "on", event, "string")
  options.argument(2, "on", fn, "function")
  if event ~= "message" then
    options.bad_argument(1, "on", ("unknown event '%s', did you mean 'message'?"):format(event))
  end
  check_thread()
  return box:on(fn)
end

--- This worker is a thread: its channels.
function M.open(boot)
  inbox, outbox = boot.inbox, boot.outbox
  mailbox = require "treadle.mailbox"
  box = mailbox.new(inbox, report)
end

--- What the module wants to run at the end.
function M.at_close(fn)
  on_close = fn
end

--- What comes last: the messages that are still there, then the module's own.
local is_draining, has_begun, is_over = false, false, false

local function say_farewell()
  local rest = future.new()
  box:on_rest(function() rest:_resolve() end)
  rest:await()
  if on_close then
    local ok, err = xpcall(on_close, mailbox.describe)
    if not ok then
      report(err)
    end
  end
  is_over = true
  core.turn()
end

--- The thread is to end: called when the worker hears of it, and whenever it has nothing to do.
-- @treturn boolean whether it may end now
function M.leave(is_quiet)
  if not is_draining then
    is_draining = true
    inbox:close()
  end
  if is_quiet and not has_begun then
    has_begun = true
    loop.spawn(future.new(), say_farewell)
    core.turn()
    return false
  end
  return is_over
end

return M
