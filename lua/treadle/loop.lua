--- The scheduler of one state: coroutines that wait, and what wakes them.
-- A coroutine waits by naming itself as a future's waiter and yielding. When the future is settled
-- (by C, which hands over a list in `core.poll`, or by Lua) its waiters are run by `loop.poll`.
-- The host calls that in `run`, a worker before its next job.
-- @module treadle.loop
local core = require "treadle.core"
local coroutine = require "treadle.coroutines"
local direct = require "treadle.direct"
local errors = require "treadle.error"
local luv = require "treadle.luv"
local owners = require "treadle.owners"
local scopes = require "treadle.scopes"
local waiters = require "treadle.waiters"

local STATE, VALUE, PENDING = core.STATE, core.VALUE, core.PENDING
local OWN, NEXT, SLOT = core.OWN, core.NEXT, core.SLOT

local loop = {}
local require = require -- the script may have its own

local add_waiter, remove_waiter = waiters.add, waiters.remove
local enter, tell, run_ready = waiters.enter, waiters.tell, waiters.run
local none_ready, is_alone = waiters.none_ready, waiters.is_alone
local leave_scope = scopes.leave
loop.add_waiter = add_waiter

--- coroutine -> whom its end is told (spawned ones): the future of its results; once that was
-- cancelled, another one; or something else with `_resolve` and `_reject`, which has that `future`.
-- The coroutine has it on its stack, or who resumes it; and while it is pending the future has the
-- coroutine as its VALUE, for who cancels it. So they are collected together.
local targets = setmetatable({}, { __mode = "kv" })
--- coroutine -> the scope that it was spawned in
local outer, own_scope = scopes.outer, scopes.own
--- coroutine -> the future it waits for, which it has on its stack: so it is collected with that
local waiting = setmetatable({}, { __mode = "kv" })
--- coroutine of a job -> job; C fills it in, or `run_job`
local fibers = core.fibers or {}

--- Spawned coroutines that have not ended: the command drains them before it exits.
local alive = 0

local has_jobs = core.worker ~= nil -- see scopes.lua

--- Somebody else's loop that this state was joined to (attach.lua), nil without one; and the
-- coroutine of that host's in which a turn of ours runs, which can run no other turn.
local host, home

loop.tell, loop.defer = tell, waiters.defer

--- The spawned coroutine that runs, or that of a job that has waited; nil in other code. Code that
-- those run is theirs: also a coroutine that the script made, from its start on. `owner` is its
-- number (owners.lua), nil until somebody asks for it.
local runs, owner = nil, 0

--- What C is asked of owners, once there are locks in this state.
local owner_in_c

--- The owner of what the code that runs here takes; 0: C knows.
function loop.owner()
  local co = host and host.own()
  if co then
    return owners.number(co)
  end
  owner = owner or owners.number(runs)
  return owner
end

--- There are locks in this state: functions that tell whom 0 means, and end an owner.
function loop.track_owners(in_c, ended)
  owner_in_c = in_c
  owners.track(ended)
end

--- Whether the code that runs is a coroutine's of treadle's.
-- @param[opt] co and of this one
function loop.is_spawned(co)
  return runs ~= nil and (co == nil or co == runs)
end

--- What a waiting coroutine yields: C and `ended` tell it from a stray yield by this.
local token = core.token

local STRAY_YIELD = "coroutine.yield outside of a coroutine that this code made: "
  .. "nobody would resume it (treadle.sleep(0) lets others run)"

--- A coroutine has ended: whom to tell, and its job. That needs no memory (a table would need some
-- to lose a key that it has not), but that for the stack: `run_thread` does what was not done.
local function forget(co, target)
  local present, job = targets[co], fibers[co]
  leave_scope(co)
  if owner_in_c then
    owners.forget(co)
  end
  if present then
    targets[co] = nil
  end
  if job then
    fibers[co] = nil
  end
  return present or target, job -- it may have got another one
end

--- A coroutine ended well.
local function succeed(co, target, ...)
  local future, job = forget(co, target)
  if job then
    if not pcall(core.job_finish, job, ...) then
      core.job_fail(job, "memory")
    end
  elseif future then
    alive = alive - 1
    if not pcall(future._resolve, future, ...) then
      future:_reject(errors.NO_MEMORY)
    end
  end
end

local function fail(co, target, value)
  local future, job = forget(co, target)
  if job then
    if not pcall(loop.fail_job, job, value, co) then
      core.job_fail(job, "memory")
    end
  elseif future then
    alive = alive - 1
    local ok, err = pcall(errors.raised, value, co)
    future:_reject(ok and err or errors.NO_MEMORY)
  else
    errors.tell("error in a coroutine: " .. debug.traceback(co, errors.text(value)))
  end
end

--- A coroutine has yielded or ended; the code that runs is that of who resumed it.
local function ended(co, target, resumer, number, ok, ...)
  runs, owner = resumer, number
  if coroutine.status(co) == "dead" then
    if ok then
      succeed(co, target, ...)
    else
      fail(co, target, (...))
    end
  elseif (...) ~= token and (target or fibers[co]) then
    fail(co, target, STRAY_YIELD)
  end
end

local resumed, outermost = 0, nil -- how many coroutines, one within another; the outermost

--- What it waits for is forgotten last: who has run out of memory before can try again.
local function resume(co, ...)
  local target = targets[co]
  if not has_jobs then
    resumed = resumed + 1
    outermost = resumed == 1 and co or outermost
    local resumer, number = runs, owner
    runs, owner = co, nil
    if waiting[co] then
      waiting[co] = nil
    end
    ended(co, target, resumer, number, coroutine.resume(co, ...))
    resumed = resumed - 1
    outermost = resumed > 0 and outermost or nil -- what it has failed with is not kept
    return
  end
  local before, scope = core.entry(), outer[co]
  local resumer, number = runs, owner
  runs, owner = co, nil
  if scope then
    core.enter(scope.entry or 0, scope.serial)
  else
    local job = fibers[co]
    if job then
      owner = 0
    end
    core.enter(job or 0)
  end
  if waiting[co] then
    waiting[co] = nil
  end
  ended(co, target, resumer, number, coroutine.resume(co, ...))
  core.enter(before)
end

local function run_thread(co, future)
  if waiting[co] == future then
    resume(co)
  elseif (targets[co] or fibers[co]) and coroutine.status(co) == "dead" then
    fail(co, nil, errors.NO_MEMORY) -- it was resumed, and there was none to tell its end
  end
end

--- Handle what has arrived: settles futures and runs nobody's code.
-- @treturn number events handled
local function gather()
  local events, more = direct.receive(tell)
  if more then
    local others, fresh, from_c = core.poll()
    for _ = 1, fresh do
      local future = from_c
      from_c = future[NEXT]
      future[NEXT] = false
      enter(future)
    end
    events = events + others
    if host and fresh > 0 then
      host.ready()
    end
  end
  return events
end
loop.gather = gather

--- Handle what has arrived and run what is ready; never blocks.
-- @tparam[opt] number budget seconds after which it begins with no other future
-- @treturn number events handled
local function poll(budget)
  local limit = budget and core.now() + budget
  local events = gather()
  local ran = run_ready(run_thread, limit)
  if not ran then -- a finalizer's poll
    return events
  end
  events = events + ran
  if host then
    host.polled()
  elseif not none_ready() then
    core.turn()
  end
  return events
end

local function leave_poll(co, number, ok, ...)
  runs, owner = co, number
  if not ok then
    error((...), 0)
  end
  return ...
end

--- The same. What it runs does not belong to the coroutine that happens to poll.
function loop.poll(budget)
  if not runs then
    return poll(budget)
  end
  local co, number = runs, owner
  runs, owner = nil, 0
  return leave_poll(co, number, pcall(poll, budget))
end

local awaited -- the future that the main chunk waits for while it sleeps

--- Whether there is something to go on with.
local function is_ready()
  return not none_ready() or awaited ~= nil and awaited[STATE] ~= PENDING
end
loop.is_ready = is_ready

local function sleep(seconds)
  if host then
    host.sleep(seconds)
  elseif luv.is_loaded() then
    require("treadle.luv_loop").wait(seconds, is_ready)
  else
    core.wait(seconds)
  end
end

local sleeper = sleep

--- Set what sleeps instead: `fn(sleep, seconds)`.
function loop.set_sleeper(fn)
  sleeper = function(seconds) fn(sleep, seconds) end
end

--- Sleep until there is something to poll, at most `seconds`.
-- @param future settled by a callback of luv's, it ends the sleep
local function block(seconds, future)
  awaited = future
  if not is_ready() then
    sleeper(seconds)
  end
end

--- One turn: poll, and if there was nothing, wait and poll again.
-- @tparam number seconds to wait at most
-- @param[opt] future ends the wait when it is settled
-- @tparam[opt] number budget see `poll`
-- @treturn number events handled
function loop.turn(seconds, future, budget)
  local events = loop.poll(budget)
  if events == 0 then
    block(seconds, future)
    awaited = nil
    events = loop.poll(budget)
  end
  return events
end

--- What a worker does instead of sleeping, when its script uses luv.
function loop.worker_wait()
  if not luv.is_loaded() then
    return false
  end
  require("treadle.luv_loop").wait(math.huge, is_ready)
  return true
end

--- The coroutine that runs, nil in a main chunk.
local function running()
  local co, is_main = coroutine.running()
  return not is_main and co and co ~= home and not (luv.is_loaded() and luv.is_home(co)) and co
    or nil
end
loop.running = running

--- The future for which the main chunk runs the loop until it is settled, if it does that now; and
-- how many such loops there are, one within another.
local driving, depth = nil, 0

--- Whether the future is settled within a spin, in which this state has nothing else to do.
local function settles_soon(future)
  repeat
    local _, more = direct.receive(tell)
    if future[STATE] ~= PENDING then
      return true
    end
  until more or not is_alone() or luv.is_loaded() or not direct.spin()
  return false
end

--- Whether the loop has nothing to do but to go on with this coroutine, and would spin.
local function is_sole(co)
  return driving and driving[STATE] == PENDING and resumed == 1 and co == outermost and is_alone()
end

local helper

--- Set what runs a queued job of a pool in this state: whether there was one. nil: no pool asks.
function loop.set_helper(fn)
  helper = fn
end

--- Whether C may spin for a moment in the place of the code that runs: nothing else is ready here.
function loop.may_spin()
  return is_alone() and not helper and not host and not luv.is_loaded()
end

--- Who may not wait: the spawned coroutine whose code runs, or the loop itself for other code.
local forbidden

--- The code that runs here may not wait, nor run the loop. Coroutines that it spawns may.
-- @return what `allow` is to be given at the end
function loop.forbid()
  local before = forbidden
  forbidden = runs or loop
  return before
end

function loop.allow(before)
  forbidden = before
end

--- Raise if the code that runs may not wait.
function loop.check_allowed(level)
  if forbidden and forbidden == (runs or loop) then
    error("a computed value, an effect or a batch cannot wait: what it has read would change "
      .. "meanwhile (treadle.spawn starts what may)", (level or 1) + 1)
  end
end

local function turn_until_settled(future, deadline)
  while future[STATE] == PENDING do
    local left = deadline and deadline - core.now() or math.huge
    if left <= 0 then
      loop.poll()
      break
    end
    -- a sleep or a time limit is not to be overslept by a job
    local helps = helper and not deadline and (future[SLOT] or 1) > 0
    if not (helps and (loop.poll() > 0 or helper())) then
      loop.turn(left, future)
    end
  end
end

--- An error leaves it, too: a hook's (an engine's limit), or no memory. Whose code had run then
-- does not run any more.
local function leave(co, number, level, ok, ...)
  if not ok then
    runs, owner = co, number
    resumed, outermost = level, level > 0 and outermost or nil
  end
  return ok, ...
end

--- Return `call(...)`, which runs what is ready and catches errors.
-- @tparam boolean is_main whether a main chunk waits for that
local function within(is_main, call, ...)
  if is_main and depth == 1 or depth == 0 and not runs then
    waiters.calm() -- an error that has left other code may have left it so
    forbidden, runs, owner = nil, nil, 0
  end
  return leave(runs, owner, resumed, call(...))
end
loop.within = within

--- The code that was to wait for a future does not: a timer was only made for that.
function loop.give_up(future)
  if (future[SLOT] or 0) < 0 then
    core.timer_stop(future)
  end
end

--- The main chunk's way to wait.
local function drive(future, deadline)
  local before = driving
  driving = not deadline and future or nil
  depth = depth + 1
  local ok, err = within(true, pcall, turn_until_settled, future, deadline)
  driving, depth = before, depth - 1
  if not ok then
    loop.give_up(future)
    error(err, 0)
  end
end

local current_job = core.entry -- that this code runs for, 0 for none

local check, join = scopes.check, scopes.join

--- Raise if the job or the coroutine that runs here was cancelled.
function loop.check()
  check(runs)
end

--- The same for code that waits for a future.
function loop.check_wait(future)
  check(runs, future)
end

--- Whether the job or the coroutine that runs here was given up.
function loop.cancelled()
  return scopes.reason_here(runs) ~= nil
end

--- The scope of what the code that runs here spawns, or nil; and its coroutine.
local function scope_here()
  local co = host and host.own() or runs or coroutine.running()
  return scopes.here(co, co and targets[co] ~= nil), co
end
loop.scope_here = scope_here

--- A coroutine's way to wait.
local function suspend(co, future, deadline, is_shielded)
  local job = has_jobs and future[OWN] and current_job() or 0
  local target = targets[co]
  local timer, maker
  if owner_in_c and not target and not fibers[co] then -- the script's, or a job's first wait
    maker = loop.owner()
    maker = maker ~= 0 and maker or owner_in_c()
  end
  if runs and runs ~= co and not outer[co] then -- the script's own coroutine
    join(co, scope_here())
  end
  add_waiter(future, is_shielded and function() resume(co) end or co)
  if deadline then
    timer = core.timer(math.max(0, deadline - core.now()))
    add_waiter(timer, function()
      if waiting[co] == future then
        remove_waiter(future, co)
        resume(co)
      end
    end)
  end
  if not is_shielded then
    waiting[co] = future -- before the count: it may raise
  end
  if job > 0 then
    core.calls(job, 1)
  end
  coroutine.yield(token)
  owner = maker or owner
  if job > 0 then
    core.calls(job, -1)
  end
  if timer then
    core.timer_stop(timer)
  end
  if not is_shielded then
    check(runs, future)
  end
  return target -- until here it is not collected
end

--- Ends the wait of a coroutine that a host schedules, or has scheduled: hosted.lua sets it.
-- @return whether this is one
function loop.wake(_) return false end

--- End the wait of a coroutine that was cancelled.
function loop.end_wait(co, future)
  waiting[co] = nil
  if not loop.wake(co) then
    remove_waiter(future, co)
    resume(co)
  end
end

--- Wait until a future is settled: yields in a coroutine, runs the loop in a main chunk.
-- @tparam[opt] number deadline a time of `core.now`; without it there is no limit
-- @tparam[opt] boolean is_shielded also if this code is cancelled, before or meanwhile
-- @treturn boolean whether it is settled
function loop.wait_for(future, deadline, is_shielded)
  local co = running()
  if not is_shielded then
    check(runs, future)
  end
  if future[STATE] ~= PENDING then -- nobody would resume who waits for it
    return true
  end
  loop.check_allowed(3)
  if host then
    host.wait(co, future, deadline, is_shielded)
    return future[STATE] ~= PENDING
  end
  if not deadline and not helper and (not co or is_sole(co)) and settles_soon(future) then
    return true
  end
  if co then
    suspend(co, future, deadline, is_shielded)
  else
    drive(future, deadline)
  end
  return future[STATE] ~= PENDING
end

-- --- making coroutines ---------------------------------------------------------------------------

--- For cancel.lua, hosted.lua.
loop.targets, loop.waiting, loop.fibers = targets, waiting, fibers
loop.resume, loop.remove_waiter = resume, remove_waiter
loop.suspend, loop.drive = suspend, drive

local make = coroutine.create

--- Set what makes a coroutine of a function, for a host that has to prepare one; nil: LuaJIT does.
function loop.set_maker(fn)
  make = fn or coroutine.create
end

local function spawn(co, target, ...)
  targets[co] = target
  alive = alive + 1
  resume(co, ...)
  return target
end

--- Run a function in a coroutine, up to its first wait. Who cancels its future cancels it, and what
-- it spawns.
-- @param future settled with what the function returns or raises
function loop.spawn(future, fn, ...)
  local co = make(fn)
  if runs or has_jobs then
    local scope = own_scope[runs]
    if scope then
      outer[co], scope.begets = scope, true
    else
      join(co, scope_here())
    end
  end
  future[VALUE] = co
  return spawn(co, future, ...)
end

--- The same for a child of a group.
-- @param target see `targets`
-- @param scope the group's
function loop.spawn_in(scope, target, fn, ...)
  local co = make(fn)
  outer[co], target.future[VALUE] = scope, co
  return spawn(co, target, ...)
end

--- The same for the runtime's own work: it is not cancelled with its future, nor with the coroutine
-- that asks for it; with its job it is.
function loop.work(future, fn, ...)
  local co = make(fn)
  if has_jobs then
    join(co, scopes.job_here())
  end
  return spawn(co, future, ...)
end

--- Run a job of this host's (a guest) in a coroutine, up to its first wait.
function loop.run_job(job, fn, ...)
  has_jobs = true
  scopes.expect_jobs()
  local co = make(fn)
  fibers[co] = job
  resume(co, ...)
end

-- --- somebody else's loop -----------------------------------------------------------------------

--- Join this state to a loop, see attach.lua; nil: take it away.
-- @tparam[opt] table joined functions: `ready`, something is to be run; `polled`, the loop was;
-- `sleep`; and hosted.lua's `wait` and `own`
function loop.set_host(joined)
  host, home = joined, nil
  waiters.set_bell(joined and joined.ready)
end

--- Set the coroutine in which the host runs a turn; nil: it runs none.
-- @return the one before
function loop.set_home(co)
  local before = home
  home = co
  return before
end

--- Whether something is under way: a coroutine that has not ended, or what is ready.
-- @tparam[opt] boolean but_here without those that run now: the host's loop may be run in one, as a
-- script is by the command
function loop.is_busy(but_here)
  return alive > (but_here and math.max(resumed, runs and 1 or 0) or 0) or is_ready()
end

--- A worker's turn. Nobody's code runs, whatever an error (no memory) may have left undone.
function loop.worker_turn()
  runs, owner, forbidden = nil, 0, nil
  return loop.poll()
end

return loop
