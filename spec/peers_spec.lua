--- What goes wrong in pools of this kind elsewhere: each test has the name of such a failure, and
-- claims that it does not happen here.
local helpers = require "helpers"
local treadle = require "treadle"

describe("what fails elsewhere:", function()
  local done = helpers.watch()
  local pool

  local function open(options)
    pool = treadle.pool("stop_tasks", options)
    return pool
  end

  after_each(function()
    if pool then
      pool:terminate()
      pool:close()
      pool = nil
    end
  end)

  it("an aborted job does not take its neighbour down", function()
    open { threads = 1, concurrency = 2 }
    local log = helpers.new_path()
    local neighbour = pool.call.nap(log, 0.05)
    local aborted = pool.call.nap(log)
    helpers.entered(log, 2)
    aborted:cancel("enough")
    assert.equal("slept", neighbour:await())
  end)

  it("a job that is stopped by force does not take one of another worker down", function()
    open { threads = 2 }
    local log = helpers.new_path()
    local gate = helpers.new_path()
    local neighbour = pool:run(function(path, until_there)
      require("stop_tasks").note(path)
      while not io.open(until_there) do
        require("treadle").sleep(0.001)
      end
      return "undisturbed"
    end, { log, gate })
    helpers.entered(log)
    local stuck = pool.call.loop("pcalls", log)
    helpers.entered(log, 2)
    stuck:cancel { force = true }
    assert.equal("cancelled", helpers.outcome(stuck))
    assert.equal("resolved", helpers.outcome(pool.call.echo(1)))
    helpers.write(gate, "")
    assert.equal("undisturbed", neighbour:await())
  end)

  it("close finishes queued work", function()
    open { threads = 2 }
    local list = {}
    for i = 1, 200 do
      list[i] = pool.call.nap(nil, 0.0001)
    end
    pool:close()
    for i = 1, 200 do
      assert.equal("resolved", helpers.outcome(list[i]))
    end
  end)

  it("close finishes what is queued behind a job that hangs until its deadline", function()
    open { threads = 1 }
    local stuck = pool:run("loop", { "empty" }, { timeout = 0.02 })
    local list = {}
    for i = 1, 100 do
      list[i] = pool.call.echo(i)
    end
    pool:close()
    assert.equal("timeout", helpers.outcome(stuck))
    for i = 1, 100 do
      assert.equal(i, list[i]:await())
    end
  end)

  it("a dead worker does not stay in the rotation", function()
    open { threads = 2 }
    for _, how in ipairs { "loop", "stuck" } do
      local args = how == "loop" and { "empty" } or { nil, 19, n = 2 }
      assert.equal("timeout", helpers.outcome(pool:run(how, args, { timeout = 0.01, worker = 1 })))
      assert.same({ 1, 2 }, pool:broadcast("id"):await())
      assert.equal(1, pool:run("id", {}, { worker = 1 }):await())
    end
  end)

  it("a hard timeout does not kill the pool", function()
    open { threads = 1 }
    for i = 1, 20 do
      local f = pool:run("loop", { "in_coroutine" }, { timeout = 0.005 })
      assert.equal("timeout", helpers.outcome(f))
      assert.equal(i, pool.call.echo(i):await())
    end
  end)

  it("an expired job never runs", function()
    open { threads = 1 }
    local gate, never = helpers.new_path(), helpers.new_path()
    local running = pool.call.hold(gate, "held")
    helpers.entered(gate .. ".entered")
    assert.equal("timeout", helpers.outcome(pool:run("note", { never }, { timeout = 0.001 })))
    helpers.write(gate, "open")
    assert.equal("held", running:await())
    assert.equal(1, pool.call.echo(1):await()) -- behind it in the queue
    assert.same({}, helpers.lines(never))
  end)

  it("a cancelled job that is queued never runs", function()
    open { threads = 1 }
    local gate, never = helpers.new_path(), helpers.new_path()
    local running = pool.call.hold(gate, "held")
    helpers.entered(gate .. ".entered")
    pool.call.note(never):cancel()
    pool.call.note(never):cancel { force = true }
    helpers.write(gate, "open")
    running:await()
    assert.equal(1, pool.call.echo(1):await())
    assert.same({}, helpers.lines(never))
  end)

  it("a cancel hits no later job that reuses the id", function()
    open { threads = 1 }
    local old = {}
    for i = 1, 100 do
      old[i] = pool.call.echo(i)
      old[i]:await()
    end
    local log = helpers.new_path()
    local later = pool.call.nap(log, 0.02) -- in the record that the others had
    helpers.entered(log)
    for i = 1, 100 do
      old[i]:cancel { force = true }
    end
    assert.equal("slept", later:await())
  end)

  it("a late stop hits no later job of the worker", function()
    open { threads = 1 }
    for i = 1, 300 do
      local f = pool.call.echo(i)
      f:cancel { force = true }
      assert.equal(i, pool.call.echo(i):await())
      helpers.outcome(f)
    end
  end)

  it("recycling ends when a job hangs", function()
    open { threads = 2, terminate_timeout = 0.05 }
    local log = helpers.new_path()
    local hung = pool:run("loop", { "interpreted", log }, { worker = 1 })
    local in_c = pool:run("stuck", { log, 20 }, { worker = 2 })
    helpers.entered(log, 2)
    assert.is_true(pool:recycle():wait(helpers.TIMEOUT))
    assert.equal("crashed", helpers.outcome(hung))
    assert.equal("crashed", helpers.outcome(in_c))
    assert.same({ 1, 1 }, pool:broadcast("age"):await())
  end)

  it("a payload above 4 MiB comes back whole", function()
    open { threads = 1 }
    local parts = {}
    for i = 1, 600000 do
      parts[i] = ("%08x"):format(i)
    end
    local text = table.concat(parts)
    assert.is_true(#text > 4 * 1024 * 1024)
    assert.is_true(text == pool.call.echo(text):await())
  end)

  it("a task that makes nothing resolves, one that raises rejects", function()
    open { threads = 1 }
    assert.equal(0, select("#", pool.call.echo():await()))
    local ok, err = pool.call.boom():pawait()
    assert.is_false(ok)
    assert.same({ code = 7 }, err.value)
  end)

  it("a table that is changed after the call arrives as it was", function()
    open { threads = 1 }
    local list = { 1, 2, 3 }
    local f = pool.call.echo(list)
    list[1] = "changed"
    assert.same({ 1, 2, 3 }, f:await())
  end)

  it("two calls on one worker do not mix up their results", function()
    open { threads = 1, concurrency = 2 }
    local slow = pool:run(function(v) require("treadle").sleep(0.01) return v end, { "slow" })
    assert.equal("fast", pool.call.echo("fast"):await())
    assert.equal("slow", slow:await())
  end)

  it("a task that waits for its own pool does not deadlock, also when that stops", function()
    open { threads = 1 }
    assert.equal(5, pool.call.nest("nest", "echo", 5):await())
    local f = pool.call.nest_with({ timeout = 0.01 }, "loop", "empty")
    assert.is_not.equal("pending", helpers.outcome(f))
    assert.equal(6, pool.call.nest("echo", 6):await())
  end)

  it("an aborted call is not settled again by its late result", function()
    open { threads = 1 }
    local settled = 0
    local f = pool:run("stuck", { nil, 18, n = 2 }, { timeout = 0.005 })
    f:finally(function() settled = settled + 1 end):catch(function() end)
    assert.equal("timeout", helpers.outcome(f))
    pool:close()
    treadle.poll()
    assert.equal(1, settled)
  end)

  it("a host that leaves while threads are stuck in C ends at once", function()
    for _, ending in ipairs { "", "pool:close(0.01)", "pool:terminate()",
      "pool = nil collectgarbage()", "os.exit(0, true)", "os.exit(0)" } do
      local out, err, code = helpers.child("luajit", [[
        local treadle = require "treadle"
        pool = treadle.pool("stop_tasks", { threads = 2, terminate_timeout = 0.05 })
        local log = os.tmpname()
        local f = { pool.call.stuck(log, 26), pool.call.stuck(log, 26) } -- a minute
        f[1]:catch(function() end)
        f[2]:catch(function() end)
        repeat
          treadle.poll(0.001)
          local n = 0
          for _ in io.lines(log) do n = n + 1 end
        until n == 2
        os.remove(log)
        io.write("stuck")
        io.flush()
      ]] .. ending)
      assert.same({ "stuck", "", 0 }, { out, err, code }, ending)
    end
  end)

  it("leaves no thread and no descriptor", function() done() end)
end)

helpers.clean()
