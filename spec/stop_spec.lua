--- Stopping what does not end by itself: alone, and while something else happens to it (waits,
-- nested loops and calls, ends).
local helpers = require "helpers"
local treadle = require "treadle"

local ffi = require "ffi"

ffi.cdef [[
  typedef struct { long space[16]; } spec_mutex;
  int pthread_mutex_init(spec_mutex *, void *);
  int pthread_mutex_lock(spec_mutex *);
  int pthread_mutex_unlock(spec_mutex *);
]]

--- Each says that it has begun, and never returns.
local LOOPS = {
  compiled = "while true do end",
  counting = "for i = 1, math.huge do n = i end",
  interpreted = "jit.off(true) while true do n = n + 1 end",
  ["in pcall"] = "while true do pcall(function() while true do end end) end",
  ["catching errors"] = "while true do pcall(error, 'again') end",
  ["in a coroutine"] = "coroutine.wrap(function() while true do end end)()",
  ["of coroutines"] = "while true do coroutine.wrap(function() n = n + 1 end)() end",
  ["of tables"] = "while true do local t = {} for i = 1, 100 do t[i] = { i } end end",
  ["of strings"] = "while true do n = n + #(tostring(n) .. 'x') end",
  ["of a recursion"] = "local function f(i) return f(i + 1) end f(1)",
  ["in a comparison"] = "table.sort({ 3, 2, 1 }, function() while true do end end)",
  ["in a replacement"] = "('x'):gsub('x', function() while true do end end)",
  ["in a spawned coroutine"] = "require('treadle').spawn(function() while true do end end)",
  ["without a hook"] = "while true do debug.sethook() end",
}

local function locked_mutex()
  local mutex = ffi.new "spec_mutex"
  ffi.C.pthread_mutex_init(mutex, nil)
  ffi.C.pthread_mutex_lock(mutex)
  return mutex
end

local function address_of(mutex)
  return tonumber(ffi.cast("intptr_t", ffi.cast("void *", mutex)))
end

describe("a task that does not end", function()
  local done, pool

  setup(function()
    local text = { [[
      local ffi = require "ffi"
      ffi.cdef "typedef struct { long space[16]; } spec_mutex"
      ffi.cdef "int pthread_mutex_lock(spec_mutex *)"
      local treadle = require "treadle"
      local M, n, kept = {}, 0, nil
      local function begun(path)
        local f = io.open(path, "a") f:write "begun\n" f:close()
      end
      function M.keep(value) local before = kept kept = value return before or "fresh" end
      function M.begin_c(path, address)
        begun(path)
        ffi.C.pthread_mutex_lock(ffi.cast("spec_mutex *", ffi.cast("intptr_t", address)))
        begun(path)
        return "late"
      end
      function M.wait(path) begun(path) treadle.sleep(1000) end
      function M.add(a, b) return a + b end
      function M.call_on(depth, ...)
        local call = treadle.worker.pool.call
        if depth == 0 then return call.compiled(...):await() end
        return call.call_on(depth - 1, ...):await()
      end
      function M.stop_own() treadle.worker.pool:terminate() while true do end end
    ]] }
    for name, code in pairs(LOOPS) do
      text[#text + 1] = ("M[%q] = function(path) begun(path); %s end"):format(name, code)
    end
    text[#text + 1] = "return M"
    helpers.module("endless", table.concat(text, "\n"))
    done = helpers.watch()
    pool = treadle.pool("endless", { threads = 2 })
  end)

  teardown(helpers.clean)

  local function has_begun(path)
    helpers.eventually(function() return #helpers.lines(path) == 1 end)
  end

  local function start(name, worker, ...)
    local path = helpers.new_path()
    local f = pool:run(name, { path, ... }, { worker = worker })
    has_begun(path)
    return f, path
  end

  local function keep(worker, value)
    return pool:run("keep", { value }, { worker = worker }):await()
  end

  for name in pairs(LOOPS) do
    it("is stopped by force: a loop " .. name, function()
      keep(1, "kept")
      keep(2, "kept")
      local f = start(name, 1)
      assert.is_true(f:cancel { force = true, reason = "enough" })
      local ok, err = f:pawait()
      assert.same({ false, "cancelled", "enough" }, { ok, err.kind, err.message })
      assert.equal("fresh", keep(1, "kept"))
      assert.equal("kept", keep(2, "kept"))
    end)
  end

  it("is stopped at its deadline while the host computes", function()
    keep(1, "kept")
    local f, next_one
    local timeout = 0.01
    repeat -- until it has begun before its deadline
      local path, next_path = helpers.new_path(), helpers.new_path()
      timeout = timeout * 2
      f = pool:run("compiled", { path }, { worker = 1, timeout = timeout, default = "late" })
      next_one = pool:run("wait", { next_path }, { worker = 1 })
      has_begun(next_path)
      local began = #helpers.lines(path) == 1
      if not began then
        next_one:cancel()
      end
    until began
    assert.equal("late", f:await())
    next_one:cancel()
    assert.equal("fresh", keep(1, "kept"))
  end)

  it("goes on when it is only cancelled", function()
    local f = start("compiled", 1)
    f:cancel()
    assert.equal("kept", keep(2, "kept"))
    assert.is_true(pool:run("keep", { 1 }, { worker = 1 }):wait(0) == false)
    pool:terminate()
    pool:close(helpers.TIMEOUT)
    pool = treadle.pool("endless", { threads = 2 })
  end)

  it("is left to itself when it is stuck in C, and ends when that returns", function()
    local mutex = locked_mutex()
    local threads = helpers.threads()
    keep(1, "kept")
    keep(2, "kept")
    local f, path = start("begin_c", 1, address_of(mutex))
    assert.is_true(f:cancel { force = true })
    assert.equal("fresh", keep(1, "kept"))
    assert.equal("kept", keep(2, "kept"))
    ffi.C.pthread_mutex_unlock(mutex)
    helpers.poll_until(function() return helpers.threads() <= threads + 1 end) -- the supervisor
    assert.equal(1, #helpers.lines(path)) -- its code does not go on
    assert.is_not_nil(mutex)
    assert.equal("kept", keep(1, "kept"))
  end)

  it("takes the jobs that wait in its state with it, and no others", function()
    local other = treadle.pool("endless", { threads = 2, concurrency = 2 })
    local paths = { helpers.new_path(), helpers.new_path(), helpers.new_path() }
    local waits = {
      other:run("wait", { paths[1] }, { worker = 1 }),
      other:run("wait", { paths[2] }, { worker = 2 }),
    }
    local f = other:run("compiled", { paths[3] }, { worker = 1 })
    for i = 1, 3 do
      has_begun(paths[i])
    end
    f:cancel { force = true }
    assert.equal("crashed", select(2, waits[1]:pawait()).kind)
    assert.equal("pending", waits[2]:state())
    other:terminate()
    other:close()
  end)

  it("in C takes the jobs that wait in its state with it", function()
    local mutex = locked_mutex()
    local other = treadle.pool("endless", { threads = 1, concurrency = 2 })
    local paths = { helpers.new_path(), helpers.new_path() }
    local waits = other:run("wait", { paths[1] })
    has_begun(paths[1])
    local f = other:run("begin_c", { paths[2], address_of(mutex) })
    has_begun(paths[2])
    f:cancel { force = true }
    assert.equal("crashed", select(2, waits:pawait()).kind)
    assert.equal(3, other.call.add(1, 2):await())
    local threads = helpers.threads()
    other:close()
    ffi.C.pthread_mutex_unlock(mutex)
    helpers.poll_until(function() return helpers.threads() <= threads - 2 end)
    assert.is_not_nil(mutex)
  end)

  it("ends with its pool", function()
    local other = treadle.pool("endless", { threads = 2 })
    local path = helpers.new_path()
    local list = { other.call.compiled(path), other.call.interpreted(path), other.call.add(1, 2) }
    helpers.eventually(function() return #helpers.lines(path) == 2 end)
    other:close(0)
    for i = 1, 3 do
      assert.equal("closed", select(2, list[i]:pawait()).kind)
    end
  end)

  it("may be the one that ends its pool", function()
    local other = treadle.pool("endless", { threads = 1 })
    assert.equal("closed", select(2, other.call.stop_own():pawait()).kind)
    other:close()
  end)

  for _, threads in ipairs { 1, 2 } do
    for depth = 0, 3 do
      it(("is stopped with its caller, %d between, %d workers"):format(depth, threads),
        function()
          local other = treadle.pool("endless", { threads = threads })
          local path = helpers.new_path()
          local f = other.call.call_on(depth, path)
          has_begun(path)
          f:cancel { force = true }
          assert.equal("cancelled", f:state())
          assert.is_true(other:drained():wait(helpers.TIMEOUT))
          for worker = 1, threads do
            assert.equal("fresh", other:run("keep", { 1 }, { worker = worker }):await())
          end
          other:close()
        end)
    end
  end

  it("is stopped whoever stops it again and again", function()
    local list = {}
    for i = 1, 20 do
      local path = helpers.new_path()
      list[i] = pool:run(i % 2 == 0 and "compiled" or "in pcall", { path }, { worker = i % 2 + 1 })
      has_begun(path)
      list[i]:cancel { force = true }
      assert.is_false(list[i]:cancel { force = true })
    end
    assert.equal(3, pool.call.add(1, 2):await())
  end)

  it("names unknown options of cancel", function()
    local f = pool.call.add(1, 2)
    local message = helpers.error_here(function() f:cancel { forse = true } end)
    assert.equal("bad argument #1 to 'cancel' (unknown option 'forse', did you mean 'force'?)",
      message)
    f:await()
  end)

  it("leaves nothing behind", function()
    pool:close(helpers.TIMEOUT)
    done()
  end)
end)

describe("what is stopped while something else happens to it", function()
  local opened = {}
  local done

  setup(function() done = helpers.watch() end)

  teardown(helpers.clean)

  local function open(options)
    options = options or {}
    options.threads = options.threads or 1
    local pool = treadle.pool("stop_tasks", options)
    opened[#opened + 1] = pool
    return pool
  end

  after_each(function()
    for i = #opened, 1, -1 do
      opened[i]:terminate()
      opened[i]:close()
      opened[i] = nil
    end
  end)

  describe("a task that turns the loop by itself", function()
    -- Which waits until the other one has begun: from then on its coroutine is resumed in there.
    local function outcomes_of_both(name, argument)
      local pool = open { concurrency = 2 }
      local gate, inner_log, outer_log = helpers.new_path(), helpers.new_path(), helpers.new_path()
      local inner = pool.call[name](gate, inner_log, argument)
      helpers.entered(gate .. ".entered")
      local outer = pool.call.turn_the_loop(outer_log)
      helpers.entered(outer_log)
      helpers.write(gate, "open")
      helpers.entered(inner_log)
      inner:cancel { force = true }
      local outcomes = { helpers.outcome(inner), helpers.outcome(outer) }
      assert.equal(1, pool.call.echo(1):await())
      return outcomes
    end

    it("crashes with the task in it that computes on", function()
      assert.same({ "cancelled", "crashed" }, outcomes_of_both("hold_then_loop", "interpreted"))
    end)

    it("crashes with the task in it that is stuck in C", function()
      local mutex, threads = locked_mutex(), helpers.threads()
      local outcomes = outcomes_of_both("hold_then_lock", address_of(mutex))
      ffi.C.pthread_mutex_unlock(mutex)
      helpers.poll_until(function()
        return helpers.threads() <= threads + 2 -- the supervisor, and who has taken its place
      end)
      assert.same({ "cancelled", "crashed" }, outcomes)
      assert.is_not_nil(mutex)
    end)
  end)

  describe("recycling", function()
    for _, name in ipairs { "empty", "interpreted", "pcalls", "finalizer", "in_coroutine" } do
      it("crashes the task that hangs: " .. name, function()
        local pool = open { terminate_timeout = 0.05 }
        local log = helpers.new_path()
        local f = pool.call.loop(name, log)
        helpers.entered(log)
        local recycled = pool:recycle()
        assert.equal("crashed", helpers.outcome(f))
        assert.is_true(recycled:wait(helpers.TIMEOUT))
        assert.equal(1, pool.call.age():await())
      end)

      it("crashes the task that hangs after a wait: " .. name, function()
        local pool = open { terminate_timeout = 0.05 }
        local log = helpers.new_path()
        local f = pool.call.nap_then_loop(0.001, name, log)
        helpers.entered(log)
        local recycled = pool:recycle()
        assert.equal("crashed", helpers.outcome(f))
        assert.is_true(recycled:wait(helpers.TIMEOUT))
        assert.equal(1, pool.call.age():await())
      end)
    end

    it("for memory delivers the result before it collects what was left behind", function()
      local pool = open { recycle_memory = 1e6 }
      assert.equal("littered", pool.call.litter():await())
    end)
  end)

  -- It was joined although it was detached, by then as the thread that had got its stack.
  it("a thread that was written off may end before its pool hears of it", function()
    local pool, log, mutex = open(), helpers.new_path(), locked_mutex()
    local threads = helpers.threads()
    local f = pool.call.lock(log, address_of(mutex))
    helpers.entered(log)
    f:cancel { force = true }
    helpers.eventually(function() return pool:stats().written_off == 1 end, "written off")
    ffi.C.pthread_mutex_unlock(mutex)
    helpers.eventually(function()
      return helpers.threads() <= threads + 1
    end, "ended")
    assert.equal(2, open().call.echo(2):await())
    assert.equal("cancelled", helpers.outcome(f))
    assert.is_not_nil(mutex)
  end)

  -- It was freed with its slot, which it had kept, and once more as one that had lost it.
  it("a thread that was written off when its pool had been terminated is freed once", function()
    for round = 1, 3 do
      local pool = open { terminate_timeout = 0.2 }
      local log = helpers.new_path()
      local f = pool.call.stuck(log, 19)
      helpers.entered(log)
      pool:terminate()
      assert.equal("closed", helpers.outcome(f))
      pool:close()
      assert.equal(round, open().call.echo(round):await())
    end
  end)

  it("a task that is late for want of a processor is not stopped", function()
    local gate, log, done_log = helpers.new_path(), helpers.new_path(), helpers.new_path()
    local hog = open().call.compute_until(gate, log)
    helpers.entered(log)
    local pool = open { concurrency = 2 }
    local held = pool.call.hold(gate, "held")
    helpers.entered(gate .. ".entered")
    local late_log = helpers.new_path()
    local late = pool.call.stand_back(late_log, done_log, 0.15)
    helpers.entered(late_log)
    late:cancel { force = true }
    assert.equal("cancelled", helpers.outcome(late))
    helpers.entered(done_log)
    helpers.write(gate, "open")
    assert.equal("held", held:await()) -- it waits in the same state
    hog:await()
  end)

  it("a worker that ends late for want of a processor runs teardown all the same", function()
    helpers.module("late_enders", [[
      local tasks = require "stop_tasks"
      return {
        yield_place = tasks.yield_place, hold = tasks.hold,
        tear_down = function() tasks.note(require("treadle").worker.data) end,
      }
    ]])
    for _, waits in ipairs { false, true } do
      local gate, log, told = helpers.new_path(), helpers.new_path(), helpers.new_path()
      local pool = treadle.pool("late_enders", { threads = 1, teardown = "tear_down", data = told })
      opened[#opened + 1] = pool
      pool.call.yield_place():await()
      if waits then
        local held = helpers.new_path()
        pool.call.hold(held):catch(function() end)
        helpers.entered(held .. ".entered")
      end
      local hog = open().call.compute_until(gate, log)
      helpers.entered(log)
      pool:terminate()
      treadle.sleep(0.05) -- far more than it has to end in
      helpers.write(gate, "open")
      pool:close()
      hog:await()
      assert.same({ "entered" }, helpers.lines(told))
    end
  end)

  it("a task that obeys late for want of a processor keeps its thread", function()
    local gate, pool = helpers.new_path(), open()
    local crowd = open { threads = 8 }
    local hogs = {}
    for i = 1, 8 do
      local log = helpers.new_path()
      hogs[i] = crowd.call.compute_until(gate, log)
      helpers.entered(log)
    end
    for _ = 1, 5 do
      local log = helpers.new_path()
      local late = pool.call.loop_there(log)
      helpers.entered(log)
      late:cancel { force = true }
      assert.equal(1, pool.call.age():await())
    end
    assert.same({ 0, 5 }, { pool:stats().written_off, pool:stats().restarts })
    helpers.write(gate, "open")
    treadle.all(hogs):await()
  end)

  it("a thread that was written off goes on when it comes back to a loop", function()
    local ended = helpers.watch()
    local pool, log, mutex = open(), helpers.new_path(), locked_mutex()
    local stuck = pool.call.lock_then_loop(log, address_of(mutex))
    helpers.entered(log)
    stuck:cancel { force = true }
    assert.equal("cancelled", helpers.outcome(stuck))
    assert.equal(1, pool.call.age():await())
    assert.equal(1, pool:stats().written_off)
    ffi.C.pthread_mutex_unlock(mutex)
    pool:close()
    ended()
    assert.is_not_nil(mutex)
  end)

  it("a task that is stuck in C is closed, not crashed, when another ends its pool", function()
    local ended = helpers.watch()
    local pool, log, mutex = open { threads = 2 }, helpers.new_path(), locked_mutex()
    local f = pool:run("lock", { log, address_of(mutex) }, { worker = 1 })
    helpers.entered(log)
    pool:run("terminate", { "enough" }, { worker = 2 })
    assert.equal("closed", helpers.outcome(f))
    ffi.C.pthread_mutex_unlock(mutex)
    pool:close()
    ended()
    assert.is_not_nil(mutex)
  end)

  -- The error that the interrupt had raised in their module was the pool's failure.
  it("a pool whose other workers have not loaded yet closes its jobs", function()
    helpers.module("slow_but_first", [[
      if require("treadle").worker.id > 1 then
        jit.off(true)
        while true do _G.x = 1 end
      end
      return require "stop_tasks"
    ]])
    local pool = treadle.pool("slow_but_first", { threads = 2, concurrency = 2 })
    opened[#opened + 1] = pool
    local log = helpers.new_path()
    local f = pool.call.nap(log)
    helpers.entered(log)
    pool:run(function()
      require("treadle").worker.pool:terminate("enough")
    end):catch(function() end)
    assert.equal("closed", helpers.outcome(f))
    pool:close()
    assert.equal("closed", helpers.outcome(pool.call.echo(1)))
  end)

  it("a task whose own pool it terminates is closed, not crashed", function()
    local pool = open { threads = 2 }
    local log = helpers.new_path()
    local f = pool:run("loop", { "interpreted", log }, { worker = 1 })
    helpers.entered(log)
    pool:run("terminate", { "enough" }, { worker = 2 })
    assert.equal("closed", helpers.outcome(f))
  end)

  it("leaves no thread and no descriptor", function() done() end)
end)
