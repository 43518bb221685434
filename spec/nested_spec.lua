--- Calls of tasks on their own pool, where the workers are processes, and threads beside them: both
-- do the same.
local helpers = require "helpers"
local treadle = require "treadle"

local POOL = { process = { runtime = "process", permissions = "unrestricted" }, thread = {} }

local function options(runtime, more)
  local opts = {}
  for _, from in ipairs { POOL[runtime], more or {} } do
    for key, value in pairs(from) do
      opts[key] = value
    end
  end
  return opts
end

local function note_of(log, text)
  helpers.poll_until(function()
    return ("\n" .. helpers.read(log)):find("\n" .. text .. "\n", 1, true)
  end, text)
end

for _, runtime in ipairs { "thread", "process" } do
  describe(("a task of a pool of %ses that calls its own pool"):format(runtime), function()
    local pools = {}

    local function open(more)
      local pool = treadle.pool("nested_tasks", options(runtime, more))
      pools[#pools + 1] = pool
      return pool
    end

    after_each(function()
      for _, pool in ipairs(pools) do
        pool:terminate()
        pool:close()
      end
      pools = {}
    end)

    teardown(helpers.clean)

    for _, threads in ipairs { 1, 2 } do
      it(("waits without a deadlock, with %d workers"):format(threads), function()
        local pool = open { threads = threads }
        assert.equal(144, pool.call.fib(12):await())
        local stats = pool:stats()
        assert.equal(465, stats.submitted)
        assert.equal(465, stats.done)
        assert.equal(465, stats.tasks.fib.runs)
      end)
    end

    it("names the worker", function()
      local pool = open { threads = 2 }
      assert.same({ 1, 2, 1 }, pool.call.ids(3,
        { { worker = 1 }, { worker = 2 }, { worker = 1 } }):await())
      assert.equal(2, pool.call.size():await())
    end)

    it("finds the worker of a key as the host does", function()
      local pool = open { threads = 2 }
      local own, opts = {}, {}
      for i = 1, 20 do
        opts[i] = { key = "key" .. i }
        own[i] = pool:run("id", {}, opts[i]):await()
      end
      assert.same(own, pool.call.ids(20, opts):await())
    end)

    it("gets errors with their traceback and their worker", function()
      local pool = open { threads = 2 }
      local kind, message, traceback, worker = pool.call.outcome_of("boom", { "oh" },
        { worker = 2 }):await()
      assert.equal("task", kind)
      assert.matches("nested_tasks.lua:%d+: oh$", message)
      assert.matches("in function <[^\n]*nested_tasks.lua", traceback)
      assert.equal(2, worker)
    end)

    it("has its calls' time run out", function()
      local pool = open { threads = 1 }
      local log = helpers.with_limit(function(seconds)
        local log = helpers.new_path()
        assert.equal("timeout", (pool.call.outcome_of("hold", { log, helpers.new_path() },
          { timeout = seconds }):await()))
        pool:drained():await()
        return helpers.read(log) ~= "" and log
      end)
      note_of(log, "ended: the time for the call is over")
    end)

    it("takes its calls along when it is cancelled", function()
      local pool = open { threads = 1 }
      local log = helpers.new_path()
      local f = pool.call.hold_below(log, helpers.new_path())
      note_of(log, "started")
      f:cancel("enough")
      note_of(log, "ended: enough")
    end)

    it("is waited for, with what it has left behind", function()
      local pool = open { threads = 1 }
      local log, gate = helpers.new_path(), helpers.new_path()
      pool.call.leave(log, gate):await()
      local drained = pool:drained()
      note_of(log, "started")
      assert.equal("pending", drained:state())
      helpers.write(gate, "")
      pool:close()
      assert.same({ "started", "done", "again" }, helpers.lines(log))
      assert.equal("resolved", drained:state())
    end)

    it("carries more than the rings hold", function()
      local pool = open { threads = 2 }
      assert.equal(500500, pool.call.many(1000, 2000):await())
      assert.equal(55, pool.call.many(10, 300000):await())
    end)

    it("shares buffers with other workers", function()
      local pool = open { threads = 2 }
      assert.equal(4950, pool.call.share(100):await())
    end)

    it("cancels what has not begun", function()
      local pool = open { threads = 2 }
      local log, gate = helpers.new_path(), helpers.new_path()
      local held = pool:run("hold", { log, gate }, { worker = 2 })
      note_of(log, "started")
      local count, messages = pool:run("cancel_pending", { "never mind" }, { worker = 1 }):await()
      assert.equal(3, count)
      assert.same({ "never mind", "never mind", "never mind" }, messages)
      helpers.write(gate, "")
      held:await()
    end)

    it("changes its size", function()
      local pool = open { threads = 1 }
      assert.equal(3, pool.call.resize(3):await())
      assert.equal(3, pool.threads)
    end)

    it("closes it, and finishes", function()
      local pool = open { threads = 1 }
      assert.equal(42, pool.call.close_and_call(42):await())
      pool:close()
      assert.equal("closed", select(2, pool.call.echo(1):pawait()).kind)
    end)

    it("terminates it, and says why", function()
      local pool = open { threads = 1 }
      local ok, err = pool.call.terminate("that will do"):pawait()
      assert.is_false(ok)
      assert.equal("closed", err.kind)
      assert.equal("that will do", err.message)
      pool:close()
    end)

    it("leaves no thread and no descriptor", function()
      open({ threads = 1 }):close()
      pools = {}
      local done = helpers.watch()
      local pool = open { threads = 2 }
      pool.call.fib(5):await()
      pool:close()
      pools = {}
      done()
    end)
  end)
end

describe("a worker's process", function()
  local pool

  after_each(function()
    pool:terminate()
    pool:close()
  end)

  it("that dies has its calls cancelled", function()
    pool = treadle.pool("nested_tasks", options("process", { threads = 2 }))
    local log, trigger = helpers.new_path(), helpers.new_path()
    local f = pool:run("die_above", { log, helpers.new_path(), trigger }, { worker = 1 })
    note_of(log, "started")
    helpers.write(trigger, "")
    assert.equal("crashed", select(2, f:pawait()).kind)
    note_of(log, "ended: the call was cancelled")
    assert.is_true(pool:drained():wait(helpers.TIMEOUT))
  end)

  it("says what of its own pool only the host has", function()
    pool = treadle.pool("nested_tasks", options("process", { threads = 1 }))
    for _, name in ipairs { "stats", "top", "backtrace", "profile", "sethook" } do
      local ok, message = pool.call.method(name):await()
      assert.is_false(ok)
      assert.matches("'" .. name .. "' of its own pool is not to be had in a worker with "
        .. 'runtime = "process"', message, 1, true)
    end
  end)

  it("makes no calls before it has started", function()
    pool = treadle.pool("nested_tasks", options("process", { threads = 1 }))
    local _, err = pcall(treadle.pool, "nested_tasks",
      options("process", { threads = 1, init = "too_early" }))
    assert.equal("load", err.kind)
    assert.matches("can call its own pool when it has started", tostring(err), 1, true)
  end)

  it("is refused as a payload what cannot leave it", function()
    pool = treadle.pool("nested_tasks", options("process", { threads = 1 }))
    local kind, message = pool.call.with_channel():await()
    assert.equal("payload", kind)
    assert.matches("cannot send to another process a channel", message, 1, true)
  end)
end)
