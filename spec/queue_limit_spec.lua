--- max_queue, on_full, pool:ready() and pool:drained().
local helpers = require "helpers"
local treadle = require "treadle"

describe("a pool's queue", function()
  local done
  local pools = {}

  local function open(options)
    local pool = treadle.pool("tasks", options)
    pools[#pools + 1] = pool
    return pool
  end

  local function entered(gate)
    return #helpers.lines(gate .. ".entered")
  end

  --- Keep all workers busy until the gate is opened: the calls that do that.
  local function occupy(pool, gate, count)
    local list = {}
    for i = 1, count or pool.threads do
      list[i] = pool.call.hold(gate, i)
    end
    helpers.poll_until(function() return entered(gate) == #list end, "all workers are busy")
    return list
  end

  local function open_gate(gate)
    helpers.write(gate, "open")
  end

  local function kind_of(f)
    local ok, err = f:pawait()
    return ok and "ok" or err.kind
  end

  setup(function()
    done = helpers.watch()
  end)

  after_each(function()
    for i, pool in ipairs(pools) do
      pool:close(helpers.TIMEOUT)
      pools[i] = nil
    end
  end)

  teardown(function()
    done()
    helpers.clean()
  end)

  describe("with max_queue", function()
    for _, threads in ipairs { 1, 2, 8 } do
      for _, max_queue in ipairs { 0, 1, 5 } do
        it(("of %d takes %d calls more than %d workers run"):format(max_queue, max_queue, threads),
          function()
            local gate = helpers.new_path()
            local pool = open { threads = threads, max_queue = max_queue }
            local list = {}
            for i = 1, threads + max_queue do -- at once: none need have started
              list[i] = pool.call.hold(gate, i)
            end
            local late = pool.call.hold(gate, 0)
            assert.equal("rejected", late:state())
            local _, err = late:pawait()
            assert.equal("queue_full", err.kind)
            assert.equal("hold", err.task)
            assert.is_nil(err.worker)
            open_gate(gate)
            for i, f in ipairs(list) do
              assert.equal(i, f:await())
            end
            for i = 1, threads + max_queue do -- and there is room for as many again
              list[i] = pool.call.add(i, 0)
            end
            for i, f in ipairs(list) do
              assert.equal(i, f:await())
            end
          end)
      end
    end

    it("refuses before it looks at the arguments, and queues nothing", function()
      local gate = helpers.new_path()
      local pool = open { threads = 1, max_queue = 0 }
      occupy(pool, gate)
      assert.equal("queue_full", kind_of(pool.call.echo(coroutine.create(print))))
      open_gate(gate)
      assert.is_true(pool:ready():wait(helpers.TIMEOUT))
      assert.equal("payload", kind_of(pool.call.echo(coroutine.create(print))))
    end)

    it("has room again when a waiting call is cancelled or its time is over", function()
      local gate = helpers.new_path()
      local pool = open { threads = 1, max_queue = 1 }
      occupy(pool, gate)
      local waiting = pool.call.add(1, 1)
      assert.equal("queue_full", kind_of(pool.call.add(2, 2)))
      waiting:cancel()
      local late, refused = unpack(helpers.with_limit(function(seconds)
        local latest = treadle.now() + seconds
        local list = { pool:run("add", { 3, 3 }, { timeout = seconds }), pool.call.add(4, 4) }
        if treadle.now() < latest then -- it was waiting when the other one came
          return list
        end
        for _, f in ipairs(list) do
          f:cancel()
          f:pawait()
        end
      end))
      assert.same({ "queue_full", "timeout" }, { kind_of(refused), kind_of(late) })
      local last = pool.call.add(5, 5)
      assert.equal("pending", last:state())
      open_gate(gate)
      assert.equal(10, last:await())
    end)

    it("has no room while a job runs whose caller gave it up", function()
      local gate = helpers.new_path()
      local pool = open { threads = 1, max_queue = 0 }
      local f = pool.call.block(gate)
      helpers.poll_until(function() return entered(gate) == 1 end)
      f:cancel()
      assert.equal("queue_full", kind_of(pool.call.add(1, 1)))
      open_gate(gate)
      assert.is_true(pool:ready():wait(helpers.TIMEOUT))
      assert.equal(2, pool.call.add(1, 1):await())
    end)

    it("never refuses calls of the pool's own workers", function()
      for _, threads in ipairs { 1, 2 } do
        local pool = open { threads = threads, max_queue = 0 }
        assert.equal(55, pool.call.fib(10):await())
        assert.equal(40, pool.call.depth(40):await())
        assert.equal(5050, pool.call.sum_all(100):await())
        assert.equal(2, pool.call.add(1, 1):await()) -- and what they held is given back
      end
    end)

    it("does not count a job that waits for calls on its own pool", function()
      local gate = helpers.new_path()
      local pool = open { threads = 1, max_queue = 1 }
      local f = pool.call.call_own("hold", gate, "x") -- it waits, its call has the place
      helpers.poll_until(function() return entered(gate) == 1 end)
      local g = pool.call.add(1, 1)
      assert.equal("pending", g:state())
      assert.equal("queue_full", kind_of(pool.call.add(1, 1)))
      open_gate(gate)
      assert.equal("x", f:await())
      assert.equal(2, g:await())
    end)

    it("counts concurrency places", function()
      local gate = helpers.new_path()
      local pool = open { threads = 2, concurrency = 3, max_queue = 1 }
      occupy(pool, gate, 6)
      local f = pool.call.add(1, 1)
      assert.equal("queue_full", kind_of(pool.call.add(1, 1)))
      open_gate(gate)
      assert.equal(2, f:await())
    end)

    it("gives the places of a worker back that was replaced", function()
      local pool = open { threads = 1, max_queue = 0, recycle_after = 3 }
      for i = 1, 20 do
        assert.is_true(pool:ready():wait(helpers.TIMEOUT))
        assert.equal(i, pool.call.add(i, 0):await())
      end
      for i = 1, 20 do
        assert.equal(i, pool.call.add(i, 0):await())
      end
    end)

    it("gives the place of a worker back that is stuck in C and was written off", function()
      local pool = open { threads = 1, max_queue = 0 }
      local path = helpers.new_path()
      local stuck = pool:run(function(gate)
        local file = assert(io.popen("while [ ! -e '" .. gate .. "' ]; do sleep 0.01; done"))
        require("tasks").note(gate .. ".entered", "stuck")
        file:read("*a") -- until the gate is open
      end, { path })
      helpers.poll_until(function() return entered(path) == 1 end)
      assert.equal("queue_full", kind_of(pool.call.add(1, 1)))
      stuck:cancel { force = true }
      assert.is_true(pool:ready():wait(helpers.TIMEOUT))
      assert.equal(2, pool.call.add(1, 1):await())
      assert.is_true(pool:drained():wait(helpers.TIMEOUT)) -- what is stuck is no worker's
      open_gate(path)
      for i = 1, 10 do -- and what it gives back when it returns does not count
        assert.equal(i, pool.call.add(i, 0):await())
      end
    end)

    it("counts what futures among the arguments hold back when they have settled", function()
      local gate = helpers.new_path()
      local pool = open { threads = 1, max_queue = 0 }
      local f, resolve = treadle.future()
      local g = pool.call.add(f, 1)
      occupy(pool, gate)
      resolve(1)
      assert.equal("queue_full", kind_of(g))
      open_gate(gate)
    end)

    it("says that a closed pool is closed, not full", function()
      local gate = helpers.new_path()
      local pool = open { threads = 1, max_queue = 0 }
      occupy(pool, gate)
      local closing = treadle.spawn(function() pool:close() end)
      assert.equal("closed", kind_of(pool.call.add(1, 1)))
      open_gate(gate)
      assert.is_true(closing:wait(helpers.TIMEOUT))
      assert.equal("closed", kind_of(pool.call.add(1, 1)))
    end)

    it("names options that are wrong, and the nearest that are right", function()
      local function message(options)
        return helpers.error_here(function() treadle.pool("tasks", options) end)
      end
      assert.matches("option 'max_queue': a whole number of at least 0 expected, got -1",
        message { max_queue = -1 }, 1, true)
      assert.matches("unknown option 'max_que', did you mean 'max_queue'?",
        message { max_que = 1 }, 1, true)
      assert.matches("option 'on_full': 'reject', 'wait' or 'run' expected, got 'wai', did you "
        .. "mean 'wait'?", message { max_queue = 1, on_full = "wai" }, 1, true)
      assert.matches("'on_full' needs a 'max_queue'", message { on_full = "run" }, 1, true)
      assert.matches("on_full 'run' lets tasks run in the host, where 'init' does not run",
        message { max_queue = 1, on_full = "run", init = "id" }, 1, true)
    end)

    it("has no limit by default, nor with math.huge", function()
      local gate = helpers.new_path()
      for _, options in ipairs { { threads = 1 }, { threads = 1, max_queue = math.huge } } do
        local pool = open(options)
        local list = {}
        for i = 1, 3000 do
          list[i] = pool.call.hold(gate, i)
        end
        for _, f in ipairs(list) do
          assert.equal("pending", f:state())
        end
        pool:terminate()
      end
    end)
  end)

  describe("with on_full = 'wait'", function()
    it("lets a coroutine go on to which room is given before it waits for it", function()
      local loop, f = require "treadle.loop", treadle.resolved()
      local went_on = treadle.spawn(function() return loop.wait_for(f) end)
      assert.equal("resolved", went_on:state())
      for _ = 1, 20 do
        local pool = open { threads = 2, max_queue = 1, on_full = "wait" }
        local all = treadle.spawn(function()
          local list = {}
          for i = 1, 100 do
            list[i] = pool.call.add(i, 0)
          end
          return treadle.all(list):await()
        end)
        assert.is_true(all:wait(helpers.TIMEOUT))
        assert.equal(100, all:await()[100])
      end
    end)

    local function wait_pool(max_queue)
      return open { threads = 1, max_queue = max_queue or 0, on_full = "wait" }
    end

    it("runs the loop in a main chunk until there is room", function()
      local gate = helpers.new_path()
      local pool = wait_pool()
      local busy = occupy(pool, gate)
      local opener = treadle.spawn(function()
        treadle.sleep(0.001)
        open_gate(gate)
      end)
      local f = pool.call.add(1, 1) -- comes back when the gate is open
      assert.equal("resolved", opener:state())
      assert.is_true(busy[1]:wait(helpers.TIMEOUT)) -- room is told before the result
      assert.equal(2, f:await())
    end)

    it("yields in a coroutine, and gives room in the callers' order", function()
      local gate, log = helpers.new_path(), helpers.new_path()
      local pool = wait_pool(1)
      occupy(pool, gate)
      local called, callers = {}, {}
      for i = 1, 50 do
        callers[i] = treadle.spawn(function()
          local f = pool.call.note(log, i)
          called[#called + 1] = i
          return f:await()
        end)
      end
      assert.same({ 1 }, called) -- one place in the queue
      open_gate(gate)
      for i = 1, 50 do
        assert.equal(i, callers[i]:await())
      end
      for i = 1, 50 do
        assert.equal(i, called[i])
        assert.equal(tostring(i), helpers.lines(log)[i])
      end
    end)

    it("lets nobody pass those who stand in line", function()
      local gate = helpers.new_path()
      local pool = wait_pool(0)
      occupy(pool, gate)
      local order = {}
      local function call(name)
        return treadle.spawn(function()
          local f = pool.call.add(0, 0)
          order[#order + 1] = name
          f:await()
        end)
      end
      local first = call("first")
      open_gate(gate)
      -- the room is told of in this poll, before `first` runs
      helpers.eventually(function() return #helpers.lines(gate .. ".entered") == 1 end)
      local second = call("second")
      assert.is_true(first:wait(helpers.TIMEOUT) and second:wait(helpers.TIMEOUT))
      assert.same({ "first", "second" }, order)
    end)

    it("counts the time in line against the call's timeout", function()
      local gate = helpers.new_path()
      local pool = wait_pool()
      occupy(pool, gate)
      assert.equal("timeout", kind_of(pool:run("add", { 1, 1 }, { timeout = 0.01 })))
      assert.equal("late", pool:run("add", { 1, 1 }, { timeout = 0.01, default = "late" }):await())
      open_gate(gate)
      assert.equal(2, pool.call.add(1, 1):await())
    end)

    it("lets go who stands in line when the call's signal is aborted", function()
      local gate = helpers.new_path()
      local pool = wait_pool()
      occupy(pool, gate)
      for _, retries in ipairs { 0, 2 } do
        local a = treadle.abort()
        local caller = treadle.spawn(function()
          return kind_of(pool:run("add", { 1, 1 }, { signal = a, retries = retries }))
        end)
        a:abort("not needed")
        assert.is_true(caller:wait(helpers.TIMEOUT))
        assert.equal("cancelled", caller:await())
      end
      local late = pool:run("add", { 1, 1 }, { signal = treadle.abort { timeout = 0.01 } })
      assert.equal("aborted after 0.01 s", select(2, late:pawait()).message)
      open_gate(gate)
      assert.equal(2, pool:run("add", { 1, 1 }, { signal = treadle.abort() }):await())
    end)

    it("rejects who stands in line when the pool is closed or terminated", function()
      for _, how in ipairs { "close", "terminate" } do
        local gate = helpers.new_path()
        local pool = wait_pool()
        occupy(pool, gate)
        local result = treadle.spawn(function() return kind_of(pool.call.add(1, 1)) end)
        assert.equal("pending", result:state())
        local ending = treadle.spawn(function() pool[how](pool) end)
        assert.equal("closed", result:await())
        open_gate(gate)
        assert.is_true(ending:wait(helpers.TIMEOUT))
      end
    end)
  end)

  describe("with on_full = 'run'", function()
    local function run_pool(options)
      options = options or {}
      options.threads, options.max_queue, options.on_full = 1, 0, "run"
      return open(options)
    end

    local gate, pool

    before_each(function()
      gate = helpers.new_path()
      pool = run_pool()
      occupy(pool, gate)
    end)

    after_each(function()
      open_gate(gate)
    end)

    it("runs the call in the caller's state, to its end", function()
      _G.queue_limit = "here"
      local f = pool.call.get_global("queue_limit")
      _G.queue_limit = nil
      assert.equal("resolved", f:state())
      assert.equal("here", f:await())
      assert.equal("here", pool:run(function(x) return x end, { "here" }):await())
    end)

    it("settles the future before the call returns", function()
      local core = require "treadle.core"
      assert.equal(core.RESOLVED, pool.call.add(1, 1)[core.STATE])
      local f = pool.call.boom("x")
      assert.equal(core.REJECTED, f[core.STATE])
      assert.equal("task", kind_of(f))
    end)

    it("copies arguments and results", function()
      local given = { 1, { 2 } }
      local got = pool.call.echo(given):await()
      assert.same(given, got)
      assert.are_not.equal(given, got)
      assert.equal("payload", kind_of(pool.call.echo(coroutine.create(print))))
      local ok, err = pool:run(function() return coroutine.create(print) end):pawait()
      assert.is_false(ok)
      assert.equal("payload", err.kind)
      assert.equal(4, select("#", pool.call.echo(1, nil, 3, nil):await()))
      assert.equal(0, select("#", pool.call.echo():await()))
    end)

    it("rejects with the task's error, of no worker", function()
      local ok, err = pool.call.boom({ code = 7 }):pawait()
      assert.is_false(ok)
      assert.equal("task", err.kind)
      assert.equal(7, err.value.code)
      assert.equal("boom", err.task)
      assert.is_nil(err.worker)
      assert.matches("tasks.lua", err.traceback, 1, true)
    end)

    it("lets a task that waits go on with the loop, and cancels it", function()
      local f = pool.call.sleep(0.001)
      assert.equal("pending", f:state())
      assert.equal(0.001, f:await())
      local log = helpers.new_path()
      for i, how in ipairs { "sleep", "await", "yield" } do
        f = pool.call.until_cancelled(log, how)
        assert.equal("pending", f:state())
        f:cancel()
        helpers.poll_until(function() return #helpers.lines(log) == 2 * i end)
        assert.matches("true$", helpers.lines(log)[2 * i])
      end
      assert.is_false(treadle.cancelled())
    end)

    it("times out", function()
      assert.equal("late", pool.call.slow(1000):await())
      assert.equal("timeout", kind_of(pool.call.strict(1000)))
      assert.equal(0.001, pool.call.slow(0.001):await())
      local f = pool:run(function()
        local stop = require("treadle").now() + 0.02
        repeat until require("treadle").now() > stop
        return "in vain"
      end, {}, { timeout = 0.001 })
      assert.equal("timeout", kind_of(f))
    end)

    it("does not run what belongs to a worker", function()
      assert.equal("queue_full", kind_of(pool:run("add", { 1, 1 }, { worker = 1 })))
      assert.equal("queue_full", kind_of(pool:run("add", { 1, 1 }, { key = "a" })))
      assert.equal("queue_full", kind_of(pool:broadcast("add", 1, 1)))
    end)

    it("waits for futures among the arguments first", function()
      local f, resolve = treadle.future()
      local g = pool.call.add(f, 1)
      resolve(41)
      assert.equal(42, g:await())
    end)

    it("lets the task call the pool", function()
      local inner = pool:run(function(p)
        return p
      end, { 1 })
      assert.equal(1, inner:await())
      helpers.module("calls_back", [[
        return { go = function() return CALL_BACK() end }
      ]])
      local other = treadle.pool("calls_back", { threads = 1, max_queue = 0, on_full = "run" })
      local blocked = other:run(function(path)
        while #require("helpers").read(path) == 0 do require("treadle").sleep(0.001) end
      end, { gate })
      _G.CALL_BACK = function() return pool.call.add(1, 2):await() end
      assert.equal(3, other.call.go():await())
      _G.CALL_BACK = nil
      open_gate(gate)
      blocked:await()
      other:close()
    end)

    it("rejects with kind 'load' what the host cannot load", function()
      helpers.module("only_in_workers", [[
        local treadle = require "treadle"
        if treadle.is_main then error("not here") end
        return { hold = function(...) return require("tasks").hold(...) end }
      ]])
      local other = treadle.pool("only_in_workers", { threads = 1, max_queue = 0, on_full = "run" })
      local f = other.call.hold(gate)
      local ok, err = other.call.hold(gate):pawait()
      assert.is_false(ok)
      assert.equal("load", err.kind)
      assert.matches("not here", err.message, 1, true)
      assert.matches("stack traceback", err.traceback, 1, true)
      open_gate(gate)
      f:await()
      other:close()
    end)

    it("ends with the pool", function()
      local log = helpers.new_path()
      local f = pool.call.until_cancelled(log, "sleep")
      pool:terminate("enough")
      local ok, err = f:pawait()
      assert.is_false(ok)
      assert.equal("closed", err.kind)
      helpers.poll_until(function() return #helpers.lines(log) == 2 end)
    end)

    it("is refused in workers", function()
      open_gate(gate)
      assert.is_true(pool:ready():wait(helpers.TIMEOUT))
      local ok, err = pool:run(function()
        return require("treadle").pool("tasks", { max_queue = 1, on_full = "run" })
      end):pawait()
      assert.is_false(ok)
      assert.matches("is for a host", err.message, 1, true)
    end)
  end)

  it("lets a pool be closed while a call of it runs in the host", function()
    local gate = helpers.new_path()
    local pool = open { threads = 1, max_queue = 0, on_full = "run" }
    occupy(pool, gate)
    local f = pool.call.hold(gate, "guest")
    assert.equal("pending", f:state())
    local closing = treadle.spawn(function() pool:close() end)
    assert.equal("pending", closing:state())
    open_gate(gate)
    assert.is_true(closing:wait(helpers.TIMEOUT))
    assert.equal("guest", f:await())
  end)

  describe("ready", function()
    it("resolves at once without a limit", function()
      local pool = open { threads = 1 }
      assert.equal("resolved", pool:ready():state())
    end)

    it("resolves when a call would be taken", function()
      local gate = helpers.new_path()
      local pool = open { threads = 1, max_queue = 1 }
      assert.equal("resolved", pool:ready():state())
      occupy(pool, gate)
      assert.equal("resolved", pool:ready():state())
      local second = helpers.new_path()
      local f = pool.call.hold(second) -- will run for long when there is room
      local ready = pool:ready()
      assert.is_false(ready:wait(0.01))
      open_gate(gate)
      assert.is_true(ready:wait(helpers.TIMEOUT)) -- though no result need come
      local g = pool.call.add(1, 1)
      assert.equal("pending", g:state())
      open_gate(second)
      f:await()
      assert.equal(2, g:await())
    end)

    it("resolves for a call that is cancelled in the queue", function()
      local gate = helpers.new_path()
      local pool = open { threads = 1, max_queue = 1 }
      occupy(pool, gate)
      local f = pool.call.add(1, 1)
      local ready = pool:ready()
      assert.equal("pending", ready:state())
      f:cancel()
      assert.is_true(ready:wait(helpers.TIMEOUT))
      open_gate(gate)
    end)

    it("lets many producers fill the queue, and rejects none of their calls", function()
      local pool = open { threads = 2, max_queue = 3 }
      local sum, producers = 0, {}
      for p = 1, 10 do
        producers[p] = treadle.spawn(function()
          for i = 1, 200 do
            pool:ready():await()
            pool.call.add(i, 0):and_then(function(x) sum = sum + x end)
          end
        end)
      end
      for _, f in ipairs(producers) do
        f:await()
      end
      pool:drained():await()
      helpers.poll_until(function() return sum == 10 * 200 * 201 / 2 end)
    end)

    it("rejects when the pool closes", function()
      local gate = helpers.new_path()
      local pool = open { threads = 1, max_queue = 0 }
      occupy(pool, gate)
      local ready = pool:ready()
      local closing = treadle.spawn(function() pool:close() end)
      assert.equal("closed", kind_of(ready))
      assert.equal("closed", kind_of(pool:ready()))
      open_gate(gate)
      assert.is_true(closing:wait(helpers.TIMEOUT))
      assert.equal("closed", kind_of(pool:ready()))
    end)

    it("resolves in a task: its calls are always taken", function()
      local pool = open { threads = 1, max_queue = 0 }
      assert.equal("resolved", pool:run(function()
        return require("treadle").worker.pool:ready():state()
      end):await())
    end)
  end)

  describe("drained", function()
    it("resolves when nothing is under way", function()
      for _, threads in ipairs { 1, 2, 8 } do
        local pool = open { threads = threads }
        assert.is_true(pool:drained():wait(helpers.TIMEOUT))
        local list = {}
        for i = 1, 100 do
          list[i] = pool.call.add(i, i)
        end
        local drained = pool:drained()
        assert.is_true(drained:wait(helpers.TIMEOUT))
        local core = require "treadle.core"
        for i = 1, 100 do
          assert.equal(core.RESOLVED, list[i][core.STATE]) -- already, without a look
        end
      end
    end)

    it("waits for what is queued, what runs, and what was given up and runs on", function()
      local gate = helpers.new_path()
      local pool = open { threads = 1 }
      local busy = pool.call.block(gate)
      helpers.poll_until(function() return entered(gate) == 1 end)
      local queued = pool.call.add(1, 1)
      local drained = pool:drained()
      assert.is_false(drained:wait(0.01))
      busy:cancel()
      queued:cancel()
      assert.is_false(drained:wait(0.01))
      open_gate(gate)
      assert.is_true(drained:wait(helpers.TIMEOUT))
    end)

    for _, threads in ipairs { 1, 2, 8 } do
      it(("waits for calls that tasks left behind, with %d workers"):format(threads), function()
        local gate = helpers.new_path()
        local pool = open { threads = threads, concurrency = 2 }
        pool:run(function(path)
          require("treadle").worker.pool.call.hold(path)
        end, { gate }):await()
        local drained = pool:drained()
        helpers.poll_until(function() return entered(gate) == 1 end)
        assert.is_false(drained:wait(0.01))
        open_gate(gate)
        assert.is_true(drained:wait(helpers.TIMEOUT))
      end)
    end

    it("resolves again and again", function()
      local pool = open { threads = 2 }
      for i = 1, 200 do
        local f = pool.call.sum_all(i % 7)
        local drained = pool:drained()
        assert.is_true(drained:wait(helpers.TIMEOUT))
        assert.equal("resolved", f:state())
      end
    end)

    it("resolves for each who asks while the workers are just falling asleep", function()
      for _, threads in ipairs { 1, 2 } do
        local pool = open { threads = threads }
        for _ = 1, 5000 do
          assert.is_true(pool:drained():wait(helpers.TIMEOUT))
        end
      end
    end)

    it("resolves when the pool is closed or terminated", function()
      for _, how in ipairs { "close", "terminate" } do
        local gate = helpers.new_path()
        local pool = open { threads = 1 }
        local busy = occupy(pool, gate)
        local drained = pool:drained()
        local ending = treadle.spawn(function() pool[how](pool) end)
        if how == "close" then
          assert.equal("pending", drained:state())
        end
        open_gate(gate)
        assert.is_true(drained:wait(helpers.TIMEOUT))
        assert.is_true(ending:wait(helpers.TIMEOUT) and busy[1]:wait(helpers.TIMEOUT))
        assert.is_true(pool:drained():wait(helpers.TIMEOUT))
      end
    end)

    it("cannot be waited for in the pool's own tasks", function()
      local pool = open { threads = 1 }
      local ok, err = pool:run(function()
        require("treadle").worker.pool:drained()
      end):pawait()
      assert.is_false(ok)
      assert.matches("it runs in it", err.message, 1, true)
    end)

    it("waits for what the host runs itself", function()
      local gate = helpers.new_path()
      local pool = open { threads = 1, max_queue = 0, on_full = "run" }
      local busy = occupy(pool, gate)
      local second = helpers.new_path()
      local guest = pool.call.hold(second, "guest")
      open_gate(gate)
      busy[1]:await()
      local drained = pool:drained()
      assert.is_false(drained:wait(0.01))
      open_gate(second)
      assert.is_true(drained:wait(helpers.TIMEOUT))
      assert.equal("guest", guest:await())
    end)
  end)
end)
