--- Jobs of all kinds, most of them unpleasant, on pools of 1, 2 and 8 workers that run one job at a
-- time or 100: fast, sleeping, raising, nested, big, stuck in Lua and in C, expiring, cancelled
-- plainly and by force, made again, of all priorities, beyond max_memory; while states are
-- recycled, listeners come and go, and pools are resized, closed and terminated. Each is settled
-- once, in a way that its kind allows; the counts add up at every look; threads, descriptors and
-- memory are back at the end.
--
-- As many jobs as fit into BUDGET; with TDL_FULL 200,000. TDL_SEED repeats what was called.
package.path = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/../support/?.lua;"
  .. package.path
local helpers = require "helpers"
local treadle = require "treadle"

local ffi = require "ffi"

ffi.cdef "int mallopt(int, int);"

-- The C library's allocator would raise this with the blocks that it has freed, here to 10 MB, and
-- keep as much free memory in each of its arenas, of which it makes 16 on two cores. What is
-- measured below would be that: 59 MB after 90,000 jobs, of which 12 were in use.
local M_TRIM_THRESHOLD = -1
ffi.C.mallopt(M_TRIM_THRESHOLD, 128 * 1024)

local FULL = os.getenv("TDL_FULL") ~= nil
local JOBS = 200000
local BUDGET = 40 -- seconds
local ROUND = 500 -- calls of one pool

--- Seconds after which a future that is not settled counts as lost.
local LIMIT = 60

--- What memory may grow by after a warm-up: 8 MB that the host keeps in idle jobs, the compiled
-- code of states that could not be closed (64 KiB each, of which it has used 8), and what lies
-- between blocks that are in use.
local GROWTH = 12e6

--- What a worker's state may have, where it has a limit: more than any call needs but those that
-- ask for it.
local CAP = 32 * 2 ^ 20

local SHAPES = {}
for _, threads in ipairs { 1, 2, 8 } do
  for _, concurrency in ipairs { 1, 100 } do
    SHAPES[#SHAPES + 1] = { threads = threads, concurrency = concurrency }
  end
end

-- --- the plan ------------------------------------------------------------------------------------

local seed = tonumber(os.getenv("TDL_SEED")) or os.time()
print("# TDL_SEED=" .. seed)

--- The same numbers everywhere for one seed.
local function random(n)
  seed = (seed * 16807 + 7) % 2147483647
  return 1 + math.floor(seed / 8) % n
end

local function any(...)
  return (select(random(select("#", ...)), ...))
end

--- Up to so many seconds.
local function moment(seconds)
  return seconds * random(1000) / 1000
end

local LOOPS = {
  "empty", "counting", "tables", "strings", "recursion", "pcalls", "errors", "coroutines",
  "in_coroutine", "sorting", "gsub", "interpreted", "metamethod", "finalizer", "finalizer_at_close",
}

local function a_loop()
  return LOOPS[random(#LOOPS)]
end

--- How a job may end: "ok" if `check` accepts what it returned, or the kind of its error. Another
-- job that is stopped takes those of its state with it ("crashed"), and so that ends with
-- `concurrency` 1 only in calls that wait for their own.
local kinds = {}

local function set(...)
  local list = {}
  for i = 1, select("#", ...) do
    list[select(i, ...)] = true
  end
  return list
end

function kinds.fast(pool, i)
  return pool.call.echo(i, "x"), set "ok", function(a, b) return a == i and b == "x" end
end

function kinds.sleeping(pool)
  return pool.call.nap(nil, moment(0.003)), set "ok", function(a) return a == "slept" end
end

function kinds.raising(pool)
  return pool.call.boom(), set "task"
end

function kinds.big(pool, i)
  local text = ("x"):rep(random(10) == 1 and 5e6 or random(300000))
  return pool.call.echo(i, text), set "ok", function(a, b) return a == i and b == text end
end

function kinds.unknown_payload(pool)
  return pool.call.echo(coroutine.create(print)), set "payload"
end

function kinds.nested(pool, i)
  return pool.call.nest("nest", "echo", i), set("ok", "task", "crashed"),
    function(a) return a == i end
end

function kinds.nested_stuck(pool)
  local options = { timeout = moment(0.01) }
  return pool.call.nest_with(options, "loop", a_loop()), set("task", "timeout", "crashed")
end

function kinds.nested_stuck_in_c(pool)
  local options = { timeout = moment(0.01) }
  return pool.call.nest_with(options, "stuck", nil, any(15, 17)),
    set("ok", "task", "timeout", "crashed")
end

function kinds.stuck(pool)
  return pool:run("loop", { a_loop() }, { timeout = moment(0.02) }), set "timeout"
end

function kinds.stuck_later(pool)
  local args = { moment(0.002), a_loop() }
  return pool:run("nap_then_loop", args, { timeout = moment(0.02) }), set "timeout"
end

function kinds.stuck_result(pool)
  return pool:run("result_loops", {}, { timeout = moment(0.02) }), set "timeout"
end

function kinds.stuck_in_c(pool)
  return pool:run("stuck", { nil, any(14, 15, 16, 17), n = 2 }, { timeout = moment(0.02) }),
    set("ok", "timeout")
end

function kinds.stuck_in_c_later(pool)
  return pool:run("nap_then_stuck", { moment(0.002), nil, any(15, 17), n = 3 },
    { timeout = moment(0.02) }), set("ok", "timeout")
end

function kinds.turning(pool)
  return pool:run("turn_the_loop", {}, { timeout = moment(0.01) }), set "timeout"
end

function kinds.expiring(pool, i)
  return pool:run("echo", { i }, { timeout = moment(0.0005) }), set("ok", "timeout"),
    function(a) return a == i end
end

function kinds.ranked(pool, i)
  return pool:run("echo", { i }, { priority = any("high", "normal", "low") }), set "ok",
    function(a) return a == i end
end

function kinds.retried(pool)
  return pool:run("nap", { nil, moment(0.003), n = 2 }, { retries = 2 }), set "ok",
    function(a) return a == "slept" end
end

--- Where there is no limit, a call like others.
function kinds.hog(pool, i, options)
  if not options.max_memory then
    return kinds.fast(pool, i)
  end
  return pool.call.hog(any("tables", "string", "pcalls")), set "memory"
end

function kinds.limited(pool, i)
  return pool:run("echo", { i }, { timeout = LIMIT }), set "ok", function(a) return a == i end
end

--- Cancels it now, or in a moment.
local function cancel(f, how)
  if random(4) == 1 then
    f:cancel(how)
  else
    treadle.spawn(function()
      treadle.sleep(moment(0.01))
      f:cancel(how)
    end)
  end
end

function kinds.cancelled(pool, i)
  local f = any(1, 2) == 1 and pool.call.echo(i) or pool.call.nap(nil, moment(0.1))
  cancel(f, any(nil, "enough"))
  return f, set("ok", "cancelled")
end

function kinds.forced(pool, i)
  local f = any(1, 2) == 1 and pool.call.echo(i) or pool.call.nap(nil, moment(0.1))
  cancel(f, { force = true })
  return f, set("ok", "cancelled")
end

function kinds.forced_stuck(pool)
  local f = any(1, 2) == 1 and pool.call.loop(a_loop())
    or pool.call.nap_then_loop(moment(0.01), a_loop())
  cancel(f, { force = true })
  return f, set "cancelled"
end

function kinds.forced_in_c(pool)
  local f = pool.call.stuck(nil, any(15, 17))
  cancel(f, { force = true })
  return f, set("ok", "cancelled")
end

function kinds.recycling(pool)
  return pool.call.recycle(), set "ok"
end

--- Its call has the same deadline and may hear of it first; the task goes on, and ends.
function kinds.inner_pool(pool)
  return pool:run("inner_pool", { a_loop() }, { timeout = 0.05 }), set("ok", "timeout"),
    function(...) return select("#", ...) == 0 end
end

function kinds.inner_pool_and_loop(pool)
  return pool:run("inner_pool_and_loop", { a_loop() }, { timeout = 0.05 }), set "timeout"
end

--- How often each kind is called, in 1,000.
local SHARES = {
  fast = 320, ranked = 60, retried = 16, hog = 4, sleeping = 120,
  raising = 60, big = 20, unknown_payload = 20, nested = 90,
  nested_stuck = 8, nested_stuck_in_c = 4, stuck = 30, stuck_later = 20, stuck_result = 6,
  stuck_in_c = 6, stuck_in_c_later = 4, turning = 4, expiring = 60, limited = 60, cancelled = 40,
  forced = 30, forced_stuck = 10, forced_in_c = 4, recycling = 2, inner_pool = 1,
  inner_pool_and_loop = 1,
}

local lottery = {}
do
  local names = {}
  for name in pairs(kinds) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    for _ = 1, SHARES[name] do
      lottery[#lottery + 1] = name
    end
  end
  assert(#lottery == 1000, #lottery)
end

-- --- one pool ------------------------------------------------------------------------------------

--- A host gives back what it keeps for the next calls when it sleeps and its last call has come
-- home: also from a thread that was written off, which is when that ends (`settled`).
local function resident(settled)
  settled()
  treadle.sleep(0.01)
  return helpers.resident()
end

local tally = {} -- kind -> outcome -> count

local function note(kind, outcome)
  tally[kind] = tally[kind] or {}
  tally[kind][outcome] = (tally[kind][outcome] or 0) + 1
end

--- A snapshot, which must add up.
local function stats_of(pool)
  local s = pool:stats()
  assert.equal(s.submitted, s.queued + s.running + s.done + s.failed + s.cancelled)
  for _, name in ipairs { "queued", "running", "done", "failed", "cancelled" } do
    assert.is_true(s[name] >= 0, name)
  end
  return s
end

--- Listens to everything. Returns what was heard of each, and a function that ends it.
local function listen(pool, threads)
  local heard, stops = {}, {}
  for i, name in ipairs { "worker_start", "worker_exit", "job_start", "job_done", "job_error" } do
    heard[name] = 0
    stops[i] = pool:on(name, function(event)
      assert(event.event == name and event.worker >= 1 and event.worker <= 2 * threads)
      heard[name] = heard[name] + 1
    end)
  end
  return heard, function()
    for _, stop in ipairs(stops) do
      stop()
    end
  end
end

--- Calls and checks. The pool's last calls are under way when `finish(pool)` ends it, after which
-- "closed" is right, too.
local function torture(shape, count, finish)
  local options = {
    threads = shape.threads, concurrency = shape.concurrency, name = "torture",
    isolate = shape.isolate, recycle_after = shape.recycle_after, terminate_timeout = LIMIT,
    max_memory = random(4) == 1 and CAP or nil,
  }
  local pool = treadle.pool("stop_tasks", options)
  local heard, deafen
  if random(2) == 1 then
    heard, deafen = listen(pool, shape.threads)
  end
  local open, settled, ended, wrong, pending = 0, 0, false, {}, {}
  local function list_pending()
    local list = {}
    for i, kind in pairs(pending) do
      list[#list + 1] = ("%s call %d"):format(kind, i)
    end
    return "all settled but " .. table.concat(list, ", ")
  end
  for i = 1, count do
    local kind = lottery[random(#lottery)]
    pending[i] = kind
    local f, allowed, check = kinds[kind](pool, i, options)
    local times = 0
    open = open + 1
    local function settle(outcome, err)
      times = times + 1
      note(kind, outcome)
      local fine = allowed[outcome] or outcome == "closed" and ended
        or outcome == "crashed" and shape.concurrency > 1
      if times > 1 or not fine then
        wrong[#wrong + 1] = ("%s call %d: %s, time %d: %s"):format(kind, i, outcome, times,
          tostring(err))
      end
      open, settled, pending[i] = open - 1, settled + 1, nil
    end
    f:and_then(function(...)
      settle(not check and "ok" or check(...) and "ok" or "wrong results")
    end):catch(function(err)
      settle(err.kind, err)
    end)
    if random(500) == 1 then
      pool:recycle()
    end
    if random(200) == 1 then
      local least = random(shape.threads)
      pool:resize(least, least + random(shape.threads) - 1)
    end
    if random(20) == 1 then
      stats_of(pool)
    end
    if deafen and random(1000) == 1 then
      deafen()
    end
    if open > 30 * shape.threads then
      treadle.poll(moment(0.01))
    end
    helpers.poll_until(function()
      return open < 60 * shape.threads
    end, list_pending)
  end
  ended = true
  finish(pool)
  local stop = treadle.now() + LIMIT
  while settled < count and treadle.now() < stop do
    treadle.poll(0.01)
  end
  assert.same({}, wrong)
  assert.equal(count, settled, list_pending())
  local s, runs = stats_of(pool), 0
  assert.same({ 0, 0 }, { s.queued, s.running })
  for _, task in pairs(s.tasks) do
    runs = runs + task.runs
  end
  if heard then
    assert.is_true(heard.job_start <= runs, heard.job_start .. " of " .. runs)
    assert.is_true(heard.job_done + heard.job_error <= heard.job_start)
  end
end

local ends = {
  function(pool)
    pool:close()
  end,
  function(pool)
    pool:terminate("enough")
    pool:close()
  end,
  function(pool)
    pool.call.terminate("enough"):catch(function() end)
    pool:close(LIMIT)
  end,
  function(pool)
    pool:close(0.001)
  end,
}

-- --- all of them ---------------------------------------------------------------------------------

describe("jobs of all kinds", function()
  local done = helpers.watch()
  local start, jobs, warm = treadle.now(), 0, nil

  local function round(shape, finish)
    torture(shape, ROUND, finish)
    jobs = jobs + ROUND
    collectgarbage()
  end

  for _, shape in ipairs(SHAPES) do
    it(("are settled once, %d workers, concurrency %d"):format(shape.threads, shape.concurrency),
      function()
        for _, finish in ipairs(ends) do
          round(shape, finish)
        end
      end)
  end

  for _, extra in ipairs { { isolate = true }, { recycle_after = 3 } } do
    it("are settled once where states are replaced all the time: " .. next(extra), function()
      round({ threads = 2, concurrency = 1, isolate = extra.isolate,
        recycle_after = extra.recycle_after }, ends[1])
    end)
  end

  it("are settled once, again and again", function()
    warm = resident(done)
    while FULL and jobs < JOBS or not FULL and treadle.now() - start < BUDGET do
      round(SHAPES[random(#SHAPES)], ends[random(#ends)])
    end
  end)

  it("leave no memory behind", function()
    local growth = resident(done) - warm
    print(("# %d jobs in %.0f s; memory grew by %.1f MB"):format(jobs, treadle.now() - start,
      growth / 1e6))
    assert.is_true(growth < GROWTH, ("%.1f MB"):format(growth / 1e6))
  end)

  it("leave no thread and no descriptor", function()
    local names = {}
    for kind, outcomes in pairs(tally) do
      for outcome, count in pairs(outcomes) do
        names[#names + 1] = ("# %-20s %-14s %d"):format(kind, outcome, count)
      end
    end
    table.sort(names)
    print(table.concat(names, "\n"))
    done()
  end)
end)

helpers.clean()
