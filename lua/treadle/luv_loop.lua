--- Joins a state whose script uses luv: it sleeps in luv's loop, where treadle's descriptor is one
-- more thing to wait for. The two loops stay apart, each library's handles on its own.
-- A program that runs luv's loop itself attaches treadle to it (adapters/luv.lua).
-- @module treadle.luv_loop
local core = require "treadle.core"
local uv = require "luv"

local M = {}

local poll, timer, prepare, idle

--- Whether luv's loop runs now: what its callbacks call must not run it again.
local running = false

--- An error that came meanwhile: one that leaves a callback ends the process.
local kept

--- For who raises errors from outside, by a hook.
-- @return whether the error is raised later, when luv's loop has returned
function M.keep(err)
  if running then
    kept = err
  end
  return running
end
debug.getregistry()["treadle.luv.keep"] = M.keep -- src/cli/main.c asks it

local function raise_kept()
  if kept then
    local err = kept
    kept = nil
    error(err, 0)
  end
end

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

--- While M.wait runs luv's loop: its arguments.
local limit, ready

local function set_timer()
  local seconds = math.min(limit, core.next_timeout() or math.huge)
  if seconds < math.huge then
    timer:start(math.ceil(seconds * 1000), 0, nothing)
  end
end

--- Runs before libuv sleeps. What ran in this very turn, timers that fell due, may have made
-- something ready, have waited itself, have used up our timer or need an earlier one.
local function before_sleep()
  if not limit then
    return
  elseif ready() or not core.arm() or kept then
    idle:start(nothing)
  else
    set_timer()
  end
end

local function make_handles()
  poll = uv.new_poll(core.fd())
  timer = uv.new_timer()
  poll:start("r", nothing)
  poll:unref()
  idle, prepare = uv.new_idle(), uv.new_prepare()
  prepare:start(before_sleep)
  prepare:unref()
end

--- Whether a program runs luv's loop itself, with a descriptor of its own on ours.
local is_lent = false

function M.lend()
  is_lent = true
  for _, handle in ipairs(poll and { poll, timer, idle, prepare } or {}) do
    handle:close()
  end
  poll = nil
end

function M.take_back()
  is_lent = false
end

--- Run luv's loop until `is_done()`, at most `seconds`, while it is lent.
function M.run_until(is_done, seconds)
  if running or uv.loop_mode() then
    error("luv: cannot wait in a callback; do it in a coroutine (treadle.spawn)", 0)
  end
  local alarm, deadline = uv.new_timer(), core.now() + seconds
  renew_last_turn()
  while not (is_done() or kept) do
    local left = deadline - core.now()
    if left <= 0 then
      break
    elseif left < math.huge then
      alarm:start(math.ceil(left * 1000), 0, nothing)
    end
    run("once")
  end
  alarm:close()
  raise_kept()
end

--- Sleep until luv or treadle has something to do, at most `seconds`; runs luv's callbacks.
-- @tparam number seconds
-- @tparam function is_ready whether a callback has made something ready meanwhile
-- @tparam[opt] boolean luv_only return, too, as soon as luv has nothing to wait for
function M.wait(seconds, is_ready, luv_only)
  if running then
    return core.wait(seconds)
  end
  renew_last_turn()
  if is_lent then
    run("once")
    return raise_kept()
  end
  run("nowait")
  raise_kept()
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
  limit, ready = seconds, is_ready
  set_timer()
  if not luv_only then
    poll:ref()
  end
  run("once")
  poll:unref()
  idle:stop()
  limit = nil
  timer:stop()
  core.disarm()
  raise_kept()
end

--- To be called where a state is closed and nothing has waited since a handle may have been.
M.before_close = renew_last_turn

--- Whether luv's loop has handles of the script's that keep it alive; lets it finish what it can
-- first.
function M.is_alive()
  renew_last_turn()
  run("nowait")
  raise_kept()
  return uv.loop_alive()
end

return M
