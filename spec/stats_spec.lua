--- pool:stats(): the counts of calls, and the times of tasks and workers.
require "path"
local ffi = require "ffi"
local helpers = require "helpers"
local treadle = require "treadle"

ffi.cdef "int pthread_mutex_lock(void *); int pthread_mutex_unlock(void *);"

--- All zero is an unlocked one. Threads may touch it for as long as they live.
local mutex = ffi.new("char[64]")

local TASKS = "stats_tasks"

local function sum(s)
  return s.queued + s.running + s.done + s.failed + s.cancelled
end

local function counts(pool)
  local s = pool:stats()
  assert.equal(s.submitted, sum(s))
  return { s.submitted, s.queued, s.running, s.done, s.failed, s.cancelled }
end

--- Without turning the loop: what workers and the supervisor do by themselves.
local function eventually_counts(pool, expected)
  helpers.eventually(function()
    local found = counts(pool)
    for i = 1, 6 do
      if found[i] ~= expected[i] then return false end
    end
    return true
  end, table.concat(expected, " "))
end

describe("pool:stats()", function()
  local done, pool

  setup(function()
    helpers.module(TASKS, [[
      local treadle = require "treadle"
      local tasks = require "tasks"
      local M = {}
      for name, fn in pairs(tasks) do M[name] = fn end
      function M.own_stats() return treadle.worker.pool:stats() end
      function M.unknown_here()
        local mt = {}
        treadle.class("stats_spec.unknown", mt)
        return setmetatable({}, mt)
      end
      function M.compute(seconds)
        local stop = treadle.now() + seconds
        while treadle.now() < stop do end
      end
      function M.garbage(n)
        kept = {}
        for i = 1, n do kept[i] = { i } end
      end
      function M.lock(address) -- in C until the host unlocks it
        local ffi = require "ffi"
        ffi.cdef "int pthread_mutex_lock(void *); int pthread_mutex_unlock(void *);"
        ffi.C.pthread_mutex_lock(ffi.cast("void *", address))
        ffi.C.pthread_mutex_unlock(ffi.cast("void *", address))
      end
      return M
    ]])
    done = helpers.watch()
  end)

  after_each(function()
    if pool then
      pool:terminate()
      pool:close()
      pool = nil
    end
  end)

  teardown(function()
    done()
    helpers.clean()
  end)

  local function open(options)
    pool = treadle.pool(TASKS, options or { threads = 1 })
    return pool
  end

  describe("counts", function()
    it("nothing in a fresh pool", function()
      open()
      assert.same({ 0, 0, 0, 0, 0, 0 }, counts(pool))
      local s = pool:stats()
      assert.is_true(s.uptime > 0)
      assert.same({ 0, 0 }, { s.written_off, s.restarts })
    end)

    it("what is queued, what runs and what is done", function()
      open()
      local gate = helpers.new_path()
      local first, second = pool.call.block(gate), pool.call.add(1, 2)
      eventually_counts(pool, { 2, 1, 1, 0, 0, 0 })
      helpers.write(gate, "open")
      eventually_counts(pool, { 2, 0, 0, 2, 0, 0 })
      first:await()
      second:await()
      assert.same({ 2, 0, 0, 2, 0, 0 }, counts(pool))
    end)

    it("errors and results that cannot travel as failed", function()
      open { threads = 1, max_payload = 1000 }
      assert.equal("task", select(2, pool.call.boom("no"):pawait()).kind)
      local f = pool:run(function() return ("x"):rep(10000) end)
      assert.equal("payload", select(2, f:pawait()).kind)
      f = pool:run(function() return coroutine.create(print) end)
      assert.equal("payload", select(2, f:pawait()).kind)
      assert.same({ 3, 0, 0, 0, 3, 0 }, counts(pool))
    end)

    it("a result that the caller cannot decode as failed", function()
      open()
      local f = pool.call.unknown_here()
      eventually_counts(pool, { 1, 0, 0, 1, 0, 0 })
      assert.equal("payload", select(2, f:pawait()).kind)
      assert.same({ 1, 0, 0, 0, 1, 0 }, counts(pool))
    end)

    it("a timeout as failed, in the queue and in the worker", function()
      open()
      local gate = helpers.new_path()
      pool.call.hold(gate)
      eventually_counts(pool, { 1, 0, 1, 0, 0, 0 })
      local queued = pool:run("add", { 1, 2 }, { timeout = 0.01 })
      eventually_counts(pool, { 2, 0, 1, 0, 1, 0 })
      assert.equal("timeout", select(2, queued:pawait()).kind)
      helpers.write(gate, "open")
      eventually_counts(pool, { 2, 0, 0, 1, 1, 0 })
      local add = pool:stats().tasks.add
      assert.same({ 0, 0 }, { add.runs, add.failures })
      helpers.with_limit(function(seconds)
        pool:close()
        open()
        gate = helpers.new_path()
        local running = pool:run("hold", { gate }, { timeout = seconds })
        assert.equal("timeout", select(2, running:pawait()).kind)
        return #helpers.lines(gate .. ".entered") > 0
      end)
      assert.same({ 1, 0, 0, 0, 1, 0 }, counts(pool))
      local hold = pool:stats().tasks.hold
      assert.same({ 1, 1 }, { hold.runs, hold.failures })
    end)

    it("a cancelled call at once, queued or running", function()
      open()
      local running, queued = pool.call.sleep(1000), pool.call.add(1, 2)
      eventually_counts(pool, { 2, 1, 1, 0, 0, 0 })
      queued:cancel()
      assert.same({ 2, 0, 1, 0, 0, 1 }, counts(pool))
      running:cancel()
      assert.same({ 2, 0, 0, 0, 0, 2 }, counts(pool))
    end)

    it("a call that is cancelled after its end as cancelled once its results are here", function()
      open()
      for _, how in ipairs { "echo", "boom" } do
        local before = counts(pool)
        local f = pool.call[how](1)
        helpers.eventually(function()
          local now = counts(pool)
          return now[4] + now[5] == before[4] + before[5] + 1
        end)
        f:cancel()
        helpers.poll_until(function() return counts(pool)[6] == before[6] + 1 end)
        assert.same({ before[4], before[5] }, { counts(pool)[4], counts(pool)[5] })
      end
    end)

    it("a call whose time was over before it was cancelled as cancelled", function()
      open()
      local f = pool:run("sleep", { 1000 }, { timeout = 0.001 })
      eventually_counts(pool, { 1, 0, 0, 0, 1, 0 })
      f:cancel()
      helpers.poll_until(function() return counts(pool)[6] == 1 end)
      assert.same({ 1, 0, 0, 0, 0, 1 }, counts(pool))
    end)

    it("no call that was refused", function()
      open { threads = 1, max_payload = 1000 }
      assert.equal("payload", select(2, pool.call.echo(print, io.stdout):pawait()).kind)
      assert.equal("payload", select(2, pool.call.echo(("x"):rep(2000)):pawait()).kind)
      assert.same({ 0, 0, 0, 0, 0, 0 }, counts(pool))
      pool:close()
      assert.equal("closed", select(2, pool.call.echo(1):pawait()).kind)
      assert.equal("closed", select(2, pool:run("echo", { 1 }, { worker = 1 }):pawait()).kind)
      assert.same({ 0, 0, 0, 0, 0, 0 }, counts(pool))
    end)

    it("no call that comes when the pool is being closed", function()
      open()
      local gate = helpers.new_path()
      pool.call.block(gate)
      eventually_counts(pool, { 1, 0, 1, 0, 0, 0 })
      local closing = treadle.spawn(function() pool:close() end)
      assert.equal("closed", select(2, pool:run("echo", { 1 }, { timeout = 5 }):pawait()).kind)
      local f = pool:run("echo", { 1 }, { worker = 1 })
      f:cancel()
      helpers.write(gate, "open")
      closing:await()
      assert.same({ 1, 0, 0, 1, 0, 0 }, counts(pool))
    end)

    it("what terminate ends as cancelled", function()
      open()
      for _ = 1, 3 do pool.call.sleep(1000) end
      eventually_counts(pool, { 3, 2, 1, 0, 0, 0 })
      pool:terminate()
      assert.same({ 3, 0, 0, 0, 0, 3 }, counts(pool))
      pool:close()
      assert.same({ 3, 0, 0, 0, 0, 3 }, counts(pool))
    end)

    it("the calls that tasks make on their own pool", function()
      open { threads = 2 }
      assert.equal(8, pool.call.fib(6):await())
      assert.same({ 25, 0, 0, 25, 0, 0 }, counts(pool))
      assert.equal(25, pool:stats().tasks.fib.runs)
    end)

    it("what callers saw, after thousands of calls that ended in every way", function()
      open { threads = 2, concurrency = 10 }
      local seen = { resolved = 0, rejected = 0, cancelled = 0 }
      local calls = {}
      for i = 1, 3000 do
        local kind = i % 5
        local f = kind == 0 and pool.call.boom(i)
          or kind == 1 and pool:run("sleep", { 0.0005 }, { timeout = 0.001 * (i % 3) })
          or pool.call.echo(i)
        if kind == 4 then f:cancel() end
        calls[i] = f
        if i % 7 == 0 then calls[i - 3]:cancel() end
        if i % 10 == 0 then
          treadle.poll()
          counts(pool)
        end
      end
      for _, f in ipairs(calls) do
        f:pawait()
        seen[f:state()] = seen[f:state()] + 1
      end
      -- results of cancelled calls may still be on their way
      local expected = { 3000, 0, 0, seen.resolved, seen.rejected, seen.cancelled }
      helpers.poll_until(function()
        return table.concat(counts(pool), " ") == table.concat(expected, " ")
      end, table.concat(expected, " "))
    end)

    it("a task sees its own pool, itself running", function()
      open()
      pool.call.echo(1):await()
      local s = pool.call.own_stats():await()
      assert.same({ 2, 0, 1, 1, 0, 0 },
        { s.submitted, s.queued, s.running, s.done, s.failed, s.cancelled })
      assert.equal(1, s.tasks.own_stats.runs)
    end)

    it("the last values of a closed pool, which stand still", function()
      open { threads = 2 }
      for i = 1, 10 do pool.call.echo(i) end
      pool:close()
      local s = pool:stats()
      assert.same({ 10, 0, 0, 10, 0, 0 }, counts(pool))
      assert.equal(10, s.workers[1].jobs + s.workers[2].jobs)
      helpers.pause()
      assert.same(s, pool:stats())
    end)
  end)

  describe("times", function()
    local function check_order(t)
      assert.is_true(0 <= t.p50 and t.p50 <= t.p90 and t.p90 <= t.p99 and t.p99 <= t.max)
      assert.is_true(t.mean <= t.max)
    end

    it("each run of a task, its wait included", function()
      open()
      local began, gate = treadle.now(), helpers.new_path()
      pool.call.sleep(0.02):await()
      local first = treadle.now() - began -- its wait was shorter
      pool.call.block(gate)
      helpers.entered(gate .. ".entered")
      local second = pool.call.sleep(0.02)
      local queued = treadle.now()
      helpers.poll_until(function() return treadle.now() - queued > 2 * first end)
      helpers.write(gate, "open")
      second:await()
      local t = pool:stats().tasks.sleep
      assert.equal(2, t.runs)
      assert.is_true(t.run.p50 >= 0.02 and t.run.mean >= 0.02)
      assert.is_true(t.wait.max >= 0.02 and t.wait.p50 < t.wait.max)
      check_order(t.run)
      check_order(t.wait)
    end)

    it("short runs by sample, and counts them all", function()
      open()
      for i = 1, 5000 do pool.call.echo(i):await() end
      local t = pool:stats().tasks.echo
      assert.equal(5000, t.runs)
      assert.is_true(t.run.p50 > 0 and t.wait.p50 > 0)
      check_order(t.run)
      check_order(t.wait)
    end)

    it("functions that travel, as 'function', and names all tasks", function()
      open()
      local tasks = pool:stats().tasks
      assert.is_nil(tasks["function"])
      assert.same({ 0, 0, 0 }, { tasks.add.runs, tasks.add.run.max, tasks.add.wait.p99 })
      pool:run(function() return 1 end):await()
      assert.equal(1, pool:stats().tasks["function"].runs)
    end)

    it("a worker that computes as busy while it does", function()
      open { threads = 2 }
      local gate = helpers.new_path()
      local f = pool:run("block", { gate }, { worker = 2 })
      helpers.eventually(function() return pool:stats().workers[2].busy > 0.02 end)
      local s = pool:stats()
      helpers.write(gate, "open")
      f:await()
      assert.is_true(s.workers[2].utilisation > s.workers[1].utilisation)
      assert.is_true(s.utilisation > 0 and s.utilisation <= 1)
      assert.is_true(s.workers[1].utilisation >= 0 and s.workers[2].utilisation <= 1)
      assert.same({ 1, 2 }, { s.workers[1].id, s.workers[2].id })
      assert.equal(1, s.workers[2].jobs)
    end)

    it("a worker that waits as idle", function()
      open()
      pool.call.sleep(0.05):await()
      local worker = pool:stats().workers[1]
      assert.is_true(worker.busy < pool:stats().tasks.sleep.run.max)
    end)

    it("the processor's time of a worker", function()
      open()
      local before = pool:stats().workers[1].cpu
      pool.call.compute(0.03):await()
      local after = pool:stats().workers[1].cpu
      assert.is_true(after > before)
      pool:close()
      assert.is_true(pool:stats().workers[1].cpu >= after)
    end)

    it("the heap of a worker once it has nothing to do", function()
      open()
      pool.call.echo(1):await()
      helpers.eventually(function() return pool:stats().workers[1].heap > 0 end)
      local before = pool:stats().workers[1].heap
      pool.call.garbage(100000):await()
      helpers.eventually(function() return pool:stats().workers[1].heap > before + 1e6 end)
    end)
  end)

  describe("of a worker that is replaced", function()
    it("goes on where its predecessor's state ended", function()
      open()
      pool.call.echo(1):await()
      pool:recycle()
      helpers.eventually(function() return pool:stats().restarts == 1 end)
      pool.call.echo(2):await()
      assert.same({ 2, 0, 0, 2, 0, 0 }, counts(pool))
      assert.equal(2, pool:stats().workers[1].jobs)
    end)

    it("counts what was stopped for it", function()
      open { threads = 1, max_memory = 30e6 }
      local f = pool.call.compute(1000)
      eventually_counts(pool, { 1, 0, 1, 0, 0, 0 })
      f:cancel { force = true }
      assert.same({ 1, 0, 0, 0, 0, 1 }, counts(pool))
      assert.equal("memory", select(2, pool.call.garbage(1e7):pawait()).kind)
      assert.equal(3, pool.call.echo(3):await())
      assert.same({ 3, 0, 0, 1, 1, 1 }, counts(pool))
      local stats = pool:stats()
      assert.equal(2, stats.restarts + stats.written_off) -- a busy machine may write it off
      assert.equal(3, pool:stats().workers[1].jobs)
    end)

    it("keeps what a thread did that is stuck in C", function()
      ffi.C.pthread_mutex_lock(mutex)
      open()
      pool.call.echo(1):await()
      local f = pool.call.lock(tonumber(ffi.cast("uintptr_t", mutex)))
      eventually_counts(pool, { 2, 0, 1, 1, 0, 0 })
      f:cancel { force = true }
      assert.same({ 2, 0, 0, 1, 0, 1 }, counts(pool))
      assert.equal(3, pool.call.echo(3):await())
      local s = pool:stats()
      assert.equal(1, s.written_off)
      assert.equal(3, s.workers[1].jobs)
      assert.same({ 3, 0, 0, 2, 0, 1 }, counts(pool))
      ffi.C.pthread_mutex_unlock(mutex)
    end)
  end)

  it("is called with a colon", function()
    open()
    assert.has_error(function() pool.stats() end)
    assert.matches("call it with a colon", select(2, pcall(pool.stats)))
  end)
end)
