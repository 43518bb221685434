--- treadle: run Lua functions on a pool of LuaJIT states, one per thread.
-- @module treadle
local core = require "treadle.core"
local future = require "treadle.future"
local loop = require "treadle.loop"
local options = require "treadle.options"

local treadle = {}
local require, rawset = require, rawset -- the script may have its own

core.setup {
  future = future.mt,
  cancelled = function(...) require("treadle.cancel").job(...) end,
  turn = loop.worker_turn,
  wait = loop.worker_wait,
  called = function() require("treadle.attach").called() end,
}

--- What is loaded when it is first used, because most workers never do: name -> module.
local LATER = {
  pool = "treadle.opening",
  task = "treadle.task", import = "treadle.task",
  all = "treadle.combine", any = "treadle.combine", race = "treadle.combine",
  all_settled = "treadle.combine", as_completed = "treadle.combine",
  abort = "treadle.abort", group = "treadle.group",
  pmap = "treadle.parallel", preduce = "treadle.parallel", pfilter = "treadle.parallel",
  psort = "treadle.parallel", pfor = "treadle.parallel",
  channel = "treadle.channel", select = "treadle.channel",
  shared = "treadle.shared", pairs = "treadle.shared", ipairs = "treadle.shared",
  mutex = "treadle.mutex", rwlock = "treadle.rwlock", semaphore = "treadle.semaphore",
  barrier = "treadle.barrier", event = "treadle.event",
  buffer = "treadle.buffer", move = "treadle.move",
  emit = "treadle.stream",
  atomics = "treadle.atomics", counter = "treadle.counter",
  signal = "treadle.signal", computed = "treadle.signal", untrack = "treadle.signal",
  effect = "treadle.effect", batch = "treadle.effect", flush = "treadle.effect",
  thread = "treadle.thread", queue = "treadle.queue",
  attach = "treadle.attach",
  parent = core.worker and "treadle.parent" or nil,
}

setmetatable(treadle, {
  __index = function(self, name)
    local module = LATER[name]
    if module then
      module = require(module)
      local value = module[name] or module.new or module
      rawset(self, name, value)
      return value
    end
  end,
})

--- True in the host, false in a worker.
treadle.is_main = core.worker == nil

--- "MAJOR.MINOR.PATCH"
treadle.version = core.version

--- How many workers make sense: the processors this process may use, the cgroup's quota counted.
-- @treturn number at least 1
treadle.cores = core.cores

--- The monotonic clock, in seconds.
treadle.now = core.now

treadle.encode = core.encode
treadle.decode = core.decode
treadle.class = core.class

local SLEEP_OPTIONS = {
  signal = function(value) return require("treadle.abort").check(value) end,
}

--- Wait `seconds`: yields inside a coroutine, runs the loop outside one.
-- @tparam number seconds
-- @tparam[opt] table given `signal` ends it with an error of kind "cancelled"
function treadle.sleep(seconds, given)
  options.seconds(1, "sleep", seconds)
  loop.check_allowed(2)
  local timer = seconds < math.huge and core.timer(math.max(0, seconds)) or future.new()
  if given ~= nil then
    given = options.check(2, "sleep", given, SLEEP_OPTIONS)
    if given.signal then
      require("treadle.abort").signal_of(given.signal):bind(timer)
    end
  end
  timer:await()
end

--- Run `fn(...)` in a coroutine of this state, up to its first wait.
-- @return a future of its results
function treadle.spawn(fn, ...)
  options.argument(1, "spawn", fn, "function")
  return loop.spawn(future.new(), fn, ...)
end

--- Run `fn(...)` in a coroutine, run the loop until it ends, return its results or raise its error.
function treadle.run(fn, ...)
  options.argument(1, "run", fn, "function")
  return loop.spawn(future.new(), fn, ...):await()
end

--- A pending future and the functions that settle it.
-- @return future, resolve(...), reject(err)
function treadle.future()
  local f = future.new()
  return f, function(...) f:_resolve(...) end, function(err) f:_reject(err) end
end

--- A future that is resolved to these values.
function treadle.resolved(...)
  local f = future.new()
  f:_resolve(...)
  return f
end

--- A future that is rejected with this error.
function treadle.rejected(err)
  local f = future.new()
  f:_reject(err)
  return f
end

--- Whether the caller of the task that runs here has given it up.
treadle.cancelled = loop.cancelled

--- Raise kind "cancelled" if the caller of the task that runs here has given it up.
treadle.check = loop.check

local has_descriptor = false

--- Handle what is ready; wait at most `timeout` seconds (default 0) for it.
-- @tparam[opt] number timeout
-- @tparam[opt] number budget seconds after which it begins with nothing more: the next call goes on
-- @treturn number how many events it handled
function treadle.poll(timeout, budget)
  if timeout ~= nil then
    options.seconds(1, "poll", timeout)
  end
  if budget ~= nil then
    options.seconds(2, "poll", budget)
  end
  loop.check_allowed(2)
  core.disarm()
  local events = loop.poll(budget)
  if events == 0 and timeout and timeout > 0 then
    events = loop.turn(timeout, nil, budget)
  end
  if has_descriptor then
    core.leave(loop.is_ready())
  end
  return events
end

--- A descriptor that is readable when `poll` has something to do. Poll once before sleeping on it.
function treadle.fd()
  local fd = core.fd()
  has_descriptor = true
  treadle.poll()
  return fd
end

--- Seconds until the next timer of treadle's, 0 when something is ready: `math.huge` for never.
function treadle.next_timeout()
  return loop.is_ready() and 0 or core.next_timeout() or math.huge
end

local function close_after(x, ok, ...)
  x:close()
  if not ok then
    error((...), 0)
  end
  return ...
end

local function close_of(x)
  return x.close
end

--- Call `fn(x)`, then `x:close()` whether it returned or raised; passes on results or error.
function treadle.using(x, fn)
  local ok, close = pcall(close_of, x)
  if not ok or close == nil then
    options.bad_argument(1, "using", "something with a method 'close' expected, got " .. type(x))
  end
  options.argument(2, "using", fn, "function")
  return close_after(x, pcall(fn, x))
end

if core.worker then
  --- In a worker: `id`, `name`, `data`, `pool`; nil in the host.
  treadle.worker = require("treadle.worker").info
end

if treadle.is_main and (rawget(_G, "vim") or rawget(_G, "love")) then
  require("treadle.attach").come_home()
end

return treadle
