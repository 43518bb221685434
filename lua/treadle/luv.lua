--- Joins a state whose script uses luv: it sleeps in luv's loop, where treadle's descriptor is one
-- more thing to wait for. The two loops stay apart, each library's handles on its own.
-- @module treadle.luv
local core = require "treadle.core"
local uv = require "luv"

local M = {}

local poll, timer

--- Whether luv's loop runs now: what its callbacks call must not run it again.
local running = false

local function run(mode)
  running = true
  uv.run(mode)
  running = false
end

--- Runs luv's loop once more when the state is closed, before luv frees the handles: this luv
-- crashes there if one of them was closed and its loop has not run since. Finalizers run newest
-- first, so it is made anew at each wait.
local last_turn

local function renew_last_turn()
  if last_turn then
    getmetatable(last_turn).__gc = nil
  end
  last_turn = newproxy(true)
  getmetatable(last_turn).__gc = function()
    uv.run("nowait")
  end
end

local function nothing() end

--- How long to look for results with luv's loop at rest, before sleeping in it.
local SPIN = 0.00005

local function make_handles()
  poll = uv.new_poll(core.fd())
  timer = uv.new_timer()
  poll:start("r", nothing)
  poll:unref()
end

--- Sleep until luv or treadle has something to do, at most `seconds`; runs luv's callbacks.
-- @tparam number seconds
-- @tparam function is_ready whether a callback has made something ready meanwhile
function M.wait(seconds, is_ready)
  if running then
    return core.wait(seconds)
  end
  renew_last_turn()
  run("nowait")
  if is_ready() or core.has_work() then
    return
  end
  if not poll or poll:is_closing() then
    make_handles()
  end
  if not core.worker then
    core.wait(math.min(SPIN, seconds))
  end
  if not core.arm() then
    return
  end
  local next_timeout = core.next_timeout()
  seconds = math.min(seconds, next_timeout or math.huge)
  if seconds < math.huge then
    timer:start(math.ceil(seconds * 1000), 0, nothing)
  end
  poll:ref()
  run("once")
  poll:unref()
  timer:stop()
  core.disarm()
end

--- Whether luv's loop has handles of the script's that keep it alive; lets it finish what it can
-- first.
function M.is_alive()
  renew_last_turn()
  run("nowait")
  return uv.loop_alive()
end

return M
