--- What is stopped while something else happens to it: waits, nested loops and calls, ends.
local helpers = require "helpers"
local treadle = require "treadle"

describe("stopping", function()
  local done = helpers.watch()
  local opened = {}

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

  --- The kind of its error, or "resolved", or "pending" if it does not settle.
  local function outcome(f)
    if not f:wait(helpers.TIMEOUT) then
      return "pending"
    end
    local ok, err = f:pawait()
    return ok and "resolved" or err.kind
  end

  --- Wait until somebody has written to the log.
  local function entered(path, times)
    helpers.poll_until(function()
      return #helpers.lines(path) >= (times or 1)
    end, "the task has begun")
  end

  describe("a task that turns the loop by itself", function()
    for how, after in pairs {
      ["is stuck in C"] = function(pool, log)
        return pool:run("nap_then_stuck", { 0.02, log, 19 }, { timeout = 0.05 })
      end,
      ["computes on"] = function(pool, log)
        return pool:run("nap_then_loop", { 0.02, "interpreted", log }, { timeout = 0.05 })
      end,
    } do
      it("crashes with the task in it that " .. how, function()
        local pool = open { concurrency = 2 }
        local inner = after(pool, helpers.new_path())
        local outer = pool.call.turn_the_loop()
        assert.equal("timeout", outcome(inner))
        assert.equal("crashed", outcome(outer))
        assert.equal(1, pool.call.echo(1):await())
      end)
    end
  end)

  describe("recycling", function()
    for _, name in ipairs { "empty", "interpreted", "pcalls", "finalizer", "in_coroutine" } do
      it("crashes the task that hangs: " .. name, function()
        local pool = open { terminate_timeout = 0.05 }
        local log = helpers.new_path()
        local f = pool.call.loop(name, log)
        entered(log)
        local recycled = pool:recycle()
        assert.equal("crashed", outcome(f))
        assert.is_true(recycled:wait(helpers.TIMEOUT))
        assert.equal(1, pool.call.age():await())
      end)

      it("crashes the task that hangs after a wait: " .. name, function()
        local pool = open { terminate_timeout = 0.05 }
        local log = helpers.new_path()
        local f = pool.call.nap_then_loop(0.001, name, log)
        entered(log)
        local recycled = pool:recycle()
        assert.equal("crashed", outcome(f))
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
    local pool = open()
    local threads = helpers.threads()
    local f = pool:run("stuck", { nil, 19, n = 2 }, { timeout = 0.01 })
    helpers.eventually(function() return pool:stats().written_off == 1 end, "written off")
    helpers.eventually(function()
      return helpers.threads() <= threads + 1
    end, "ended")
    assert.equal(2, open().call.echo(2):await())
    assert.equal("timeout", outcome(f))
  end)

  -- It was freed with its slot, which it had kept, and once more as one that had lost it.
  it("a thread that was written off when its pool had been terminated is freed once", function()
    for round = 1, 3 do
      local pool = open { terminate_timeout = 0.2 }
      local log = helpers.new_path()
      local f = pool.call.stuck(log, 19)
      entered(log)
      pool:terminate()
      assert.equal("closed", outcome(f))
      pool:close()
      assert.equal(round, open().call.echo(round):await())
    end
  end)

  it("a thread that was written off goes on when it comes back to a loop", function()
    local ended = helpers.watch()
    local pool = open()
    assert.equal("timeout", outcome(pool:run("stuck_then_loop", { 19 }, { timeout = 0.01 })))
    assert.equal(1, pool.call.age():await())
    pool:close()
    ended()
  end)

  it("a task that is stuck in C is closed, not crashed, when another ends its pool", function()
    local pool = open { threads = 2 }
    local log = helpers.new_path()
    local f = pool:run("stuck", { log, 20 }, { worker = 1 })
    entered(log)
    pool:run("terminate", { "enough" }, { worker = 2 })
    assert.equal("closed", outcome(f))
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
    entered(log)
    pool:run(function()
      require("treadle").worker.pool:terminate("enough")
    end):catch(function() end)
    assert.equal("closed", outcome(f))
    pool:close()
    assert.equal("closed", outcome(pool.call.echo(1)))
  end)

  it("a task whose own pool it terminates is closed, not crashed", function()
    local pool = open { threads = 2 }
    local log = helpers.new_path()
    local f = pool:run("loop", { "interpreted", log }, { worker = 1 })
    entered(log)
    pool:run("terminate", { "enough" }, { worker = 2 })
    assert.equal("closed", outcome(f))
  end)

  it("leaves no thread and no descriptor", function() done() end)
end)

helpers.clean()
