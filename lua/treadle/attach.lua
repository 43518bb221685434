--- Joins this state to a loop that somebody else runs, by an adapter: a table of functions that
-- tell how the host runs a turn, and how code waits there (docs/attach.md).
-- @module treadle.attach
local core = require "treadle.core"
local errors = require "treadle.error"
local hosted = require "treadle.hosted"
local loop = require "treadle.loop"
local options = require "treadle.options"
local owners = require "treadle.owners"

local M = {}
local require = require -- the script may have its own

--- What an adapter may have.
local SHAPE = {
  name = "string", watch = "function", block = "function", parker = "function",
  rearm = "function", hold = "function", report = "function", budget = "number",
  boot = "function",
}

--- Adapters that come with treadle. `find()` is the host if the state is in it, `is(x)` whether a
-- value is that host; both only for those whose host is a library.
local NAMES = {
  luv = "luv", nvim = "nvim", love = "love", nginx = "nginx", openresty = "nginx",
  cqueues = "cqueues", copas = "copas",
}

--- In which order a host is looked for: what is a whole program first, then who runs a loop.
local ORDER = { "nvim", "nginx", "love", "copas", "cqueues", "luv" }

local attached -- the joint that is in force

local function host_of(name)
  if name == "nvim" then
    local vim = rawget(_G, "vim")
    return vim and (vim.uv or vim.loop)
  elseif name == "nginx" then
    return rawget(_G, "ngx")
  elseif name == "love" then
    return rawget(_G, "love")
  end
  return package.loaded[name]
end

local function module_of(name)
  return require("treadle.adapters." .. NAMES[name])
end

--- @param[opt] given its options, by name; most have none
local function new_adapter(name, host, given)
  local module = module_of(name)
  local known = module.OPTIONS
  if given ~= nil and not known then
    options.bad_argument(2, "attach", ("%s has no options"):format(name), 3)
  end
  return module.new(host, known and options.check(2, "attach", given, known, 3))
end

local function find_adapter(given, opts)
  if given == nil then
    for _, name in ipairs(ORDER) do
      if host_of(name) then
        return new_adapter(name, host_of(name), opts)
      end
    end
    error("treadle.attach: no host found: give it the name of one, or an adapter", 3)
  elseif type(given) == "string" then
    if not NAMES[given] then
      options.bad_argument(1, "attach", ("no adapter '%s' comes with treadle, did you mean '%s'?")
        :format(given, options.nearest(given, NAMES)), 2)
    end
    local name = NAMES[given]
    return new_adapter(name, host_of(name), opts)
  end
  for _, name in ipairs(ORDER) do
    if given == host_of(name) then
      return new_adapter(name, given, opts)
    end
  end
  if type(given) == "userdata" and package.loaded.cqueues then
    return new_adapter("cqueues", given, opts)
  elseif opts ~= nil then
    options.bad_argument(2, "attach", "an adapter of one's own has no options", 2)
  end
  return given
end

local function check_adapter(adapter)
  if type(adapter) ~= "table" then
    options.bad_argument(1, "attach", ("an adapter, a host or its name expected, got %s"):format(
      type(adapter)), 2)
  end
  for name in pairs(adapter) do
    if type(name) == "string" and not SHAPE[name] then
      options.bad_argument(1, "attach", ("field '%s' of the adapter: there is no such one, did you "
        .. "mean '%s'?"):format(name, options.nearest(name, SHAPE)), 2)
    end
  end
  for name, kind in pairs(SHAPE) do
    local value = adapter[name]
    if value ~= nil and type(value) ~= kind then
      options.bad_argument(1, "attach", ("field '%s' of the adapter: %s expected, got %s"):format(
        name, kind, type(value)), 2)
    end
  end
  if not adapter.watch then
    options.bad_argument(1, "attach", "the adapter has no function 'watch'", 2)
  end
end

-- --- while it is in force ------------------------------------------------------------------------

--- How many waits of code outside of a coroutine there are, one within another.
local blocking = 0

--- Whether treadle has something to wait for.
local function is_pending()
  return blocking > 0 or loop.is_busy(true) or core.is_live()
end

--- Until when the host sleeps, if only time passes; 0: it does not.
local wakes_at

--- How many turns run, one within another, and whether one is taking what has arrived; whether one
-- has handled something.
local turning, gathers, has_turned = 0, false, false

local joint -- for loop.set_host, while something is attached

--- Keep the host's loop up, or no longer; a turn looks again whether that is needed.
local function hold(is_held)
  local self = attached
  if self.adapter.hold and self.is_held ~= is_held then
    self.is_held = is_held
    core.tell_call(not is_held)
    self.adapter.hold(is_held)
    if is_held then
      core.leave(true)
    end
  end
end

--- A call is made, the first one since it was not held.
function M.called()
  if attached then
    hold(true)
  end
end

--- What the host sleeps on is prepared; until when it may.
local function leave()
  local ready = loop.is_ready()
  core.leave(ready)
  return ready and 0 or core.next_due() or math.huge
end

--- An error with where it came from; Ctrl-C's (src/cli/main.c) stays what it is.
local function describe(err)
  if err == "interrupted" then
    return { is_interrupt = true }
  end
  return errors.is(err) and tostring(err) or debug.traceback(errors.text(err), 2)
end

--- The next turn may be due earlier than the host knows.
-- @tparam boolean is_nested the host's loop runs within a turn, whose end would tell it
local function rearm(is_nested)
  local due = core.next_due()
  if due and due < wakes_at then
    wakes_at = due
    if attached.adapter.rearm then
      attached.adapter.rearm(math.max(0, due - core.now()))
    elseif turning == 0 or is_nested then
      core.leave(true)
    end
  end
end

--- Take what has arrived. What comes from here on the descriptor says: what a turn runs may run the
-- host's loop.
-- @return as `hosted.turn`
local function begin_turn()
  if core.now() >= wakes_at then -- the host sleeps until no time now
    wakes_at = math.huge
  end
  core.disarm()
  gathers = true
  local ok, events = xpcall(loop.gather, describe)
  gathers = false
  has_turned = has_turned or not ok or events > 0
  core.leave(false)
  rearm()
  return ok, events
end

local function turn_of(self)
  return function()
    if attached ~= self then -- it was watched a moment longer
      return math.huge
    end
    turning = turning + 1
    local ok, events = begin_turn()
    if ok and blocking == 0 then -- else who waits in main code runs the rest, outside of this loop
      ok, events = hosted.turn(describe, self.adapter.budget)
    end
    turning = turning - 1
    has_turned = has_turned or not ok or events > 0
    if not ok then
      if type(events) == "table" then
        error("interrupted", 0)
      end
      errors.tell(events)
    end
    if attached ~= self then -- what it ran has ended it
      return math.huge
    end
    wakes_at = leave()
    hold(is_pending())
    return math.max(0, wakes_at - core.now())
  end
end

--- Something is ready: the descriptor says so. What has just arrived is run in this very turn.
local function ready()
  if not gathers then
    core.leave(true)
  end
  hold(true)
end

local plain_timer = core.timer

local function timer(seconds)
  local future = plain_timer(seconds)
  rearm()
  hold(true)
  return future
end

--- Wait in this place as if nothing were attached: the host stands still meanwhile. An adapter may
-- have it as its `block`.
-- @tparam function is_done
-- @tparam number seconds at most
function M.stall(is_done, seconds)
  local deadline = core.now() + seconds
  while not is_done() and not loop.is_ready() do
    local left = deadline - core.now()
    if left <= 0 then
      break
    end
    core.wait(left)
    if core.has_work() then
      break
    end
  end
  leave()
end

local function is_done()
  return has_turned or loop.is_ready()
end

--- The sleep of code outside of a coroutine.
local function sleep(seconds)
  local before = has_turned
  has_turned = false
  blocking = blocking + 1
  hold(true)
  rearm(true)
  local ok, err = pcall(attached.adapter.block or M.stall, is_done, seconds)
  blocking = blocking - 1
  has_turned = before or has_turned
  core.leave(true) -- a turn says whether the host's loop is to be held
  if not ok then
    error(err, 0)
  end
end

local function no_place(name)
  return name .. ": cannot wait here; do it in a coroutine (treadle.spawn)"
end

local function always()
  return true
end

--- Raise if code outside of a coroutine cannot wait here: also if what it waits for is there soon.
local function check_block(deadline)
  if deadline and deadline <= core.now() then
    return
  elseif not attached.adapter.block then
    error(no_place(attached.name), 0)
  end
  attached.adapter.block(always, 0)
end

local function is_its(co)
  if owners.is_known(co) then
    return true
  elseif attached.adapter.parker then
    local ok, found = pcall(attached.adapter.parker, co)
    return ok and found ~= nil
  end
  return false
end

local function parker(co)
  hold(true)
  return attached.adapter.parker and attached.adapter.parker(co)
end

joint = hosted.complete {
  ready = ready, polled = leave, sleep = sleep, check_block = check_block, is_its = is_its,
  parker = parker,
}

-- --- attaching -----------------------------------------------------------------------------------

local methods = {}
local mt = { __name = "treadle.attachment", __index = methods }
mt.__tostring = function(self) return "treadle.attachment: " .. self.name end

--- End it: the state waits by itself again. Once more does nothing.
function methods:detach()
  if getmetatable(self) ~= mt then
    options.misused("detach", "attachment", self)
  end
  if attached ~= self then
    return
  end
  attached = nil
  core.timer = plain_timer
  core.tell_call(false)
  loop.set_host(nil)
  errors.teller = nil
  core.disarm()
  self.stop()
end

--- Join this state to the loop of a host. What came about by itself gives way.
-- @param[opt] given an adapter, the name of one that comes with treadle, a host's library; nil: the
-- host that this state finds itself in
-- @tparam[opt] table opts of an adapter that has some
-- @return an object with `detach()`
function M.attach(given, opts)
  if core.worker then
    error("treadle.attach: a worker's loop is its pool's; only a host can be attached", 2)
  elseif attached and not attached.is_automatic then
    error(("treadle.attach: attached to %s already (detach it first)"):format(attached.name), 2)
  end
  local adapter = find_adapter(given, opts)
  check_adapter(adapter)
  if attached then
    attached:detach()
  end
  local self = setmetatable({ adapter = adapter, name = adapter.name or "the host" }, mt)
  local stop = adapter.watch(core.fd(), turn_of(self))
  if type(stop) ~= "function" then
    error(("treadle.attach: 'watch' of %s returned no function"):format(self.name), 2)
  end
  self.stop, attached, wakes_at = stop, self, math.huge
  core.timer = timer
  loop.set_host(joint)
  errors.teller = adapter.report
  core.leave(true) -- the first turn comes at once, and says when the next
  hold(is_pending())
  return self
end

--- The adapter that is in force.
function M.current()
  return attached and attached.adapter
end

--- Hosts that are a whole program, whose loop is running before any script does.
local HOMES = { "nvim", "love" }

--- Attach to the program whose state this is, if it is one that nobody can wait in otherwise.
function M.come_home()
  for _, name in ipairs(HOMES) do
    if not core.worker and not attached and host_of(name) and module_of(name).is_here() then
      M.attach(name).is_automatic = true
    end
  end
end

--- Let the host complete what workers are told: where it finds modules.
function M.complete(boot)
  local adapter = M.current()
  if adapter and adapter.boot then
    adapter.boot(boot)
  end
end

return M
