--- The scheduler of one state: coroutines that wait, and what wakes them.
-- A coroutine waits by naming itself as a future's waiter and yielding. When the future is settled
-- (by C, which hands over a list in `core.poll`, or by Lua) its waiters are run by `loop.poll`.
-- The host calls that in `run`, a worker before it takes its next job.
-- @module treadle.loop
local core = require "treadle.core"
local direct = require "treadle.direct"
local errors = require "treadle.error"
local luv = require "treadle.luv"

local STATE, WAITER, OWN, NEXT = core.STATE, core.WAITER, core.OWN, core.NEXT
local PENDING, RESOLVED = core.PENDING, core.RESOLVED
local SLOT = core.SLOT

local loop = {}

--- coroutine -> the future of its results (spawned ones)
local owners = setmetatable({}, { __mode = "k" })
--- What the coroutines that a job spawned have in common: `{ entry =, serial =, reason = }`. They
-- may outlive the job, whose entry is used again then; the serial number is not. `reason` is why it
-- was cancelled.
local scopes = setmetatable({}, { __mode = "v" }) -- serial number -> scope
local scope_of = setmetatable({}, { __mode = "k" }) -- coroutine -> scope
--- coroutine -> the future it waits for, which it has on its stack: so it is collected with that
local waiting = setmetatable({}, { __mode = "kv" })
--- coroutine of a job -> job; C fills it in, or `run_job`
local fibers = core.fibers or {}

--- Futures that are settled and have waiters, oldest first, linked by NEXT (true: the last one), so
-- that to enter one needs no memory. They are numbered from `first` to `last`.
local head, tail
local first, last = 1, 0

--- A finalizer may run wherever compiled code is left, and call into this module; no other one runs
-- within it. While the list is `busy`, it enters futures here: only a finalizer moves `late_last`,
-- only the others `late_first`.
local busy = false
local late, late_first, late_last = {}, 1, 0
--- Spawned coroutines that have not ended: the command drains them before it exits.
local alive = 0

--- Count a collector down for a resolved future; whether that was the last one.
local function count_down(collector)
  local left = collector[1] - 1
  collector[1] = left
  return left == 0
end

local function is_collector(waiter)
  return type(waiter) == "table" and type(waiter[1]) == "number"
end

local in_worker = core.worker ~= nil

--- Whether jobs run here: in a worker, and in a host that has run one.
local has_jobs = in_worker

local function append(future)
  if future[NEXT] then -- it is there already
    return
  elseif busy then
    if late_first > late_last then
      late_first, late_last = 1, 0
    end
    late_last = late_last + 1
    late[late_last] = future
    return
  end
  busy = true
  if first <= last then
    tail[NEXT] = future
  else
    head = future
  end
  future[NEXT] = true
  tail = future
  last = last + 1
  busy = false
end

local function append_late()
  while late_first <= late_last do
    local future = late[late_first]
    late[late_first] = false
    late_first = late_first + 1
    append(future)
  end
end

--- Put a future that Lua has just settled, and that has waiters, on the ready list.
function loop.tell(future)
  local waiter = future[WAITER]
  if future[STATE] == RESOLVED and is_collector(waiter) and not count_down(waiter) then
    return
  end
  append(future)
  if in_worker then
    core.turn()
  end
end

--- Call `fn` at the next turn of the loop.
function loop.defer(fn)
  local node = { RESOLVED, nil, nil, nil, nil, nil, false }
  node[WAITER] = fn
  append(node)
  core.turn()
end

--- Name a waiter: a coroutine to resume, a function to call with the future, or a collector.
-- Several waiters stand in a list. A collector is a table `{ n, done = fn, failed = fn }` that
-- waits for n futures: each that resolves counts it down (C does, too) and the last one calls
-- `done()`; each that is rejected calls `failed(future)`.
function loop.add_waiter(future, waiter)
  local present = future[WAITER]
  if present == nil then
    future[WAITER] = waiter
  elseif type(present) == "table" and not is_collector(present) then
    present[#present + 1] = waiter
  else
    future[WAITER] = { present, waiter }
  end
end

local function remove_waiter(future, waiter)
  local present = future[WAITER]
  if present == waiter then
    future[WAITER] = nil
  elseif type(present) == "table" then
    for i = #present, 1, -1 do
      if present[i] == waiter then
        table.remove(present, i)
      end
    end
  end
end

--- Who may hold locks is known by a number: an owner. `owner` is that of the code that runs: 0 for
-- the main chunk and for a job's coroutine, which C tells apart (hold.h), or that of the spawned
-- coroutine `runs`, nil until somebody asks for it. Code that those run is theirs: also a coroutine
-- that the script made, from its start on.
local runs, owner = nil, 0
local last_owner = 1
local numbers = setmetatable({}, { __mode = "k" }) -- spawned coroutine -> owner
local guards = setmetatable({}, { __mode = "k" }) -- the same -> what is collected with it

--- What C is asked and told of owners, once there are locks in this state.
local owner_in_c, owner_ended

local function name_owner()
  local co = runs
  local number = numbers[co]
  if not number then
    number = last_owner + 2 -- odd: even numbers are those of jobs
    last_owner = number
    local guard = newproxy(true)
    getmetatable(guard).__gc = function() pcall(owner_ended, number) end
    numbers[co], guards[co] = number, guard
  end
  owner = number
  return number
end

--- The owner of what the code that runs here takes; 0: C knows.
function loop.owner()
  return owner or name_owner()
end

--- There are locks in this state: functions that tell whom 0 means, and end an owner.
function loop.track_owners(in_c, ended)
  owner_in_c, owner_ended = in_c, ended
end

local function end_owner(co)
  local number = numbers[co]
  if number then
    getmetatable(guards[co]).__gc = nil
    numbers[co], guards[co] = nil, nil
    owner_ended(number)
  end
end

--- What a waiting coroutine yields: C and `ended` tell it from a stray yield by this.
local token = core.token

local STRAY_YIELD = "coroutine.yield in a task, outside of a coroutine that it made: "
  .. "nobody would resume it (treadle.sleep(0) lets others run)"

--- A coroutine ended well.
local function succeed(co, ...)
  local future, job = owners[co], fibers[co]
  owners[co], fibers[co], scope_of[co] = nil, nil, nil
  if owner_ended then
    end_owner(co)
  end
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

local function fail(co, value)
  local future, job = owners[co], fibers[co]
  owners[co], fibers[co], scope_of[co] = nil, nil, nil
  if owner_ended then
    end_owner(co)
  end
  if job then
    if not pcall(loop.fail_job, job, value, co) then
      core.job_fail(job, "memory")
    end
  elseif future then
    alive = alive - 1
    local ok, err = pcall(loop.task_error, value, co)
    future:_reject(ok and err or errors.NO_MEMORY)
  else
    io.stderr:write(("treadle: error in a coroutine: %s\n"):format(
      debug.traceback(co, errors.text(value))))
  end
end

--- A coroutine that was resumed has yielded or ended; the code that runs is that of who resumed it.
local function ended(co, resumer, number, ok, ...)
  runs, owner = resumer, number
  if coroutine.status(co) == "dead" then
    if ok then
      succeed(co, ...)
    else
      fail(co, (...))
    end
  elseif (...) ~= token and (owners[co] or fibers[co]) then
    fail(co, STRAY_YIELD)
  end
end

--- How many coroutines have been resumed here, one within another, and the outermost.
local resumed, outermost = 0, nil

local function resume(co, ...)
  waiting[co] = nil
  if not has_jobs then
    resumed = resumed + 1
    outermost = resumed == 1 and co or outermost
    local resumer, number = runs, owner
    runs, owner = co, nil
    ended(co, resumer, number, coroutine.resume(co, ...))
    resumed = resumed - 1
    outermost = resumed > 0 and outermost or nil -- what it has failed with is not kept
    return
  end
  local before, scope = core.entry(), scope_of[co]
  local resumer, number = runs, owner
  runs, owner = co, nil
  if scope then
    core.enter(scope.entry, scope.serial)
  else
    local job = fibers[co]
    if job then
      owner = 0
    end
    core.enter(job or 0)
  end
  ended(co, resumer, number, coroutine.resume(co, ...))
  core.enter(before)
end

local function run_waiter(waiter, future)
  local kind = type(waiter)
  if kind == "thread" then
    if waiting[waiter] == future then
      resume(waiter)
    end
  elseif kind == "function" then
    waiter(future)
  elseif future[STATE] ~= RESOLVED then
    waiter.failed(future)
  elseif count_down(waiter) then
    waiter.done()
  end
end

--- The head of the list while its last waiter runs: nobody else waits to be run then, if it is the
-- only one.
local current

--- Each waiter is taken away before it runs: after an error the next poll goes on with the others.
local function run_waiters(future)
  local waiter = future[WAITER]
  current = nil
  if type(waiter) == "table" and not is_collector(waiter) then
    for i = 1, #waiter do
      local one = waiter[i]
      if one then
        waiter[i] = false
        current = i == #waiter and future or nil
        run_waiter(one, future)
      end
    end
    future[WAITER] = nil
    return
  end
  future[WAITER] = nil
  current = future
  if is_collector(waiter) then
    if future[STATE] ~= RESOLVED then
      waiter.failed(future)
    else -- whoever made the future ready has counted
      waiter.done()
    end
  elseif waiter ~= nil then
    run_waiter(waiter, future)
  end
end

--- Handle what has arrived: settles futures and runs nobody's code.
-- @treturn number events handled
local function gather()
  local events, more = direct.receive(loop.tell)
  if more then
    local others, fresh, from_c = core.poll()
    for _ = 1, fresh do
      local future = from_c
      from_c = future[NEXT]
      future[NEXT] = false
      append(future)
    end
    events = events + others
  end
  return events
end
loop.gather = gather

--- Handle what has arrived and run what is ready; never blocks.
-- @treturn number events handled
function loop.poll()
  local events = gather()
  if busy then -- a finalizer's poll
    return events
  end
  append_late()
  local stop = last
  while first <= stop do
    local future = head
    run_waiters(future)
    busy = true
    if head == future then -- else a poll within has gone on
      head = future[NEXT]
      future[NEXT] = false
      first = first + 1
      events = events + 1
    end
    busy = false
  end
  current = nil
  if first <= last or late_first <= late_last then
    core.turn()
  end
  return events
end

--- The future that the main chunk waits for while it sleeps.
local awaited

--- Whether there is something to go on with that no descriptor tells of.
local function is_ready()
  return first <= last or late_first <= late_last or awaited ~= nil and awaited[STATE] ~= PENDING
end
loop.is_ready = is_ready

--- Sleep until there is something to poll, at most `seconds`.
-- @param future settled by a callback of luv's, it ends the sleep
local function block(seconds, future)
  awaited = future
  if is_ready() then
    return
  end
  if luv.is_loaded() then
    luv.wait(seconds, is_ready)
  else
    core.wait(seconds)
  end
end

--- One turn: poll, and if there was nothing, wait and poll again.
-- @tparam number seconds to wait at most
-- @param[opt] future ends the wait when it is settled
-- @treturn number events handled
function loop.turn(seconds, future)
  local events = loop.poll()
  if events == 0 then
    block(seconds, future)
    awaited = nil
    events = loop.poll()
  end
  return events
end

--- What a worker does instead of sleeping, when its script uses luv.
local function worker_wait()
  if not luv.is_loaded() then
    return false
  end
  luv.wait(math.huge, is_ready)
  return true
end

--- The coroutine that runs, nil in a main chunk.
local function running()
  local co, is_main = coroutine.running()
  return not is_main and co and not (luv.is_loaded() and luv.is_home(co)) and co or nil
end

--- The future for which the main chunk runs the loop until it is settled, if it does that now; and
-- how many such loops there are, one within another.
local driving, depth = nil, 0

--- Whether nothing is ready but the code that runs.
local function is_alone()
  return late_first > late_last and (first > last or first == last and head == current)
end

--- Whether the future is settled within a spin, in which this state has nothing else to do.
local function settles_soon(future)
  repeat
    local _, more = direct.receive(loop.tell)
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

--- Runs a queued job of a pool in this state; whether there was one. nil: no pool asks for that.
local helper

--- Set that function.
function loop.set_helper(fn)
  helper = fn
end

--- Whether C may spin for a moment in the place of the code that runs: nothing else is ready here.
function loop.may_spin()
  return is_alone() and not helper and not luv.is_loaded()
end

--- The main chunk's way to wait.
local function drive(future, deadline)
  local before = driving
  driving = not deadline and future or nil
  depth = depth + 1
  if depth == 1 then -- a hook's error (an engine's limit) may have left it so
    busy = false
    runs, owner = nil, 0
  end
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
  driving = before
  depth = depth - 1
end

--- The job on whose behalf this code runs, 0 for none.
local current_job = core.entry

--- The scope of the coroutine that runs, if its job is over.
local function left_scope()
  local co = coroutine.running()
  return co and scope_of[co]
end

--- Raise if the job that runs here was cancelled.
function loop.check()
  if has_jobs then
    local job = current_job()
    local reason
    if job > 0 then
      reason = core.cancelled(job) and core.reason(job)
    else
      local scope = left_scope()
      reason = scope and scope.reason
    end
    if reason then
      error(errors.new("cancelled", reason), 0)
    end
  end
end

--- Whether the caller of the job that runs here has given it up.
function loop.cancelled()
  if not has_jobs then
    return false
  end
  local job = current_job()
  if job > 0 then
    return core.cancelled(job)
  end
  local scope = left_scope()
  return scope ~= nil and scope.reason ~= nil
end

--- A coroutine's way to wait.
local function suspend(co, future, deadline)
  local job = has_jobs and future[OWN] and current_job() or 0
  local timer, maker
  if owner_in_c and not owners[co] and not fibers[co] then -- the script's, or a job's first wait
    maker = loop.owner()
    maker = maker ~= 0 and maker or owner_in_c()
  end
  loop.add_waiter(future, co)
  if deadline then
    timer = core.timer(math.max(0, deadline - core.now()))
    loop.add_waiter(timer, function()
      if waiting[co] == future then
        remove_waiter(future, co)
        resume(co)
      end
    end)
  end
  waiting[co] = future -- before the count: it may raise
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
  loop.check()
end

--- Wait until a future is settled: yields in a coroutine, runs the loop in a main chunk.
-- @tparam[opt] number deadline a time of `core.now`; without it there is no limit
-- @treturn boolean whether it is settled
function loop.wait_for(future, deadline)
  local co = running()
  loop.check()
  if future[STATE] ~= PENDING then -- nobody would resume who waits for it
    return true
  elseif not deadline and not helper and (not co or is_sole(co)) and settles_soon(future) then
    return true
  end
  if co then
    suspend(co, future, deadline)
  else
    drive(future, deadline)
  end
  return future[STATE] ~= PENDING
end

--- Entries of jobs that were cancelled since the last turn, if there are such.
local given_up

--- Wake the coroutines of jobs that were cancelled: their waits raise.
local function end_waits()
  local entries, woken = given_up, {}
  given_up = nil
  for co, future in pairs(waiting) do
    local scope = scope_of[co]
    if scope and scope.reason or entries[fibers[co]] and core.cancelled(fibers[co]) then
      woken[co] = future
    end
  end
  for co, future in pairs(woken) do
    if waiting[co] == future then
      remove_waiter(future, co)
      resume(co)
    end
  end
end

--- A job was cancelled: at the next turn, before another one can begin, its waits end.
function loop.cancel_job(entry, serial, reason)
  local scope = scopes[serial]
  if scope then
    scope.reason = reason
  end
  if not given_up then
    loop.defer(end_waits)
    given_up = {}
  end
  given_up[entry] = true
end

--- The scope for a coroutine that is spawned here.
local function scope_here()
  local entry, serial = core.scope()
  if not entry then
    return left_scope()
  end
  local scope = scopes[serial]
  if not scope then
    scope = { entry = entry, serial = serial, reason = core.reason(entry) }
    scopes[serial] = scope
  end
  return scope
end

--- Run a function in a coroutine, up to its first wait.
-- @param future settled with what the function returns or raises
function loop.spawn(future, fn, ...)
  local co = coroutine.create(fn)
  owners[co] = future
  if has_jobs then
    scope_of[co] = scope_here()
  end
  alive = alive + 1
  resume(co, ...)
  return future
end

--- Run a job of this host's (a guest) in a coroutine, up to its first wait.
function loop.run_job(job, fn, ...)
  has_jobs = true
  local co = coroutine.create(fn)
  fibers[co] = job
  resume(co, ...)
end

--- An error that was raised in a coroutine, as an error object.
function loop.task_error(value, co)
  if errors.is(value) then
    return value
  end
  return errors.new("task", errors.text(value), { value = value, traceback = debug.traceback(co) })
end

--- Whether something is under way that the command waits for before it exits.
function loop.is_busy()
  return alive > 0 or is_ready()
end

loop.worker_wait = worker_wait

--- A worker's turn. Nobody's code runs, whatever an error (no memory) may have left undone.
function loop.worker_turn()
  runs, owner = nil, 0
  return loop.poll()
end

return loop
