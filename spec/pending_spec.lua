--- pool:cancel_pending: what has not started never does.
local helpers = require "helpers"
local treadle = require "treadle"

describe("pool:cancel_pending", function()
  local done
  local pool

  local function open(options)
    pool = treadle.pool("tasks", options)
    return pool
  end

  --- Jobs that keep all workers until the gate is open.
  local function occupy()
    local gate, list = helpers.new_path(), {}
    for i = 1, pool.threads do
      list[i] = pool:run("block", { gate, i }, { worker = i })
    end
    helpers.poll_until(function() return #helpers.lines(gate .. ".entered") == #list end)
    return gate, list
  end

  local function is_cancelled(f, reason)
    assert.is_true(f:wait(helpers.TIMEOUT))
    local ok, err = f:pawait()
    assert.same({ false, "cancelled", reason, "cancelled" },
      { ok, err.kind, err.message, f:state() })
  end

  local function counts()
    local s = pool:stats()
    return { s.submitted, s.queued, s.running, s.done, s.failed, s.cancelled }
  end

  setup(function()
    done = helpers.watch()
  end)

  after_each(function()
    if pool then
      pool:close(helpers.TIMEOUT)
      pool = nil
    end
  end)

  teardown(function()
    done()
    helpers.clean()
  end)

  for _, threads in ipairs { 1, 3 } do
    it(("rejects what waits in any queue and leaves what runs, with %d workers"):format(threads),
      function()
        open { threads = threads }
        local gate, busy = occupy()
        local log, list = helpers.new_path(), {}
        for i = 1, 200 do
          list[#list + 1] = pool.call.note(log, "never")
          list[#list + 1] = pool:run("note", { log, "never" }, { key = i })
          list[#list + 1] = pool:run("note", { log, "never" }, { priority = "low" })
          list[#list + 1] = pool:run("note", { log, "never" }, { priority = "high", retries = 2 })
          list[#list + 1] = pool:run("note", { log, "never" }, { timeout = helpers.TIMEOUT })
        end
        list[1]:cancel("by itself")
        assert.equal(999, pool:cancel_pending("not now"))
        is_cancelled(list[1], "by itself")
        for i = 2, #list do
          is_cancelled(list[i], "not now")
        end
        assert.equal(0, pool:cancel_pending())
        helpers.write(gate, "")
        for i, f in ipairs(busy) do
          assert.equal(i, f:await())
        end
        pool:drained():await()
        assert.same({}, helpers.lines(log))
        assert.same({ threads + 1000, 0, 0, threads, 0, 1000 }, counts())
        assert.equal(3, pool.call.add(1, 2):await())
      end)
  end

  it("tells the reason, or that there is none", function()
    open { threads = 1 }
    local gate = occupy()
    local f = pool.call.add(1, 1)
    pool:cancel_pending()
    is_cancelled(f, "the pool's pending calls were cancelled")
    local cause = select(2, treadle.spawn(error, "a cause"):pawait())
    local g = pool.call.add(1, 1)
    pool:cancel_pending(cause)
    is_cancelled(g, cause.message)
    helpers.write(gate, "")
  end)

  it("rejects calls that wait for their arguments", function()
    open { threads = 1 }
    local argument, resolve = treadle.future()
    local f = pool.call.add(argument, 1)
    local gone = pool.call.add(argument, 1)
    gone:cancel()
    assert.equal(1, pool:cancel_pending("not now"))
    is_cancelled(f, "not now")
    resolve(1)
    treadle.spawn(treadle.sleep, 0):await()
    assert.equal(0, pool:stats().submitted)
    assert.equal(2, pool.call.add(argument, 1):await())
    assert.equal(0, pool:cancel_pending("not now"))
  end)

  it("rejects calls that wait for room", function()
    open { threads = 1, max_queue = 1, on_full = "wait" }
    local gate = occupy()
    local queued = pool.call.add(1, 1)
    local callers = {}
    for i = 1, 3 do
      callers[i] = treadle.spawn(function() return pool.call.add(i, i):await() end)
    end
    assert.equal(4, pool:cancel_pending("not now"))
    is_cancelled(queued, "not now")
    for i = 1, 3 do
      is_cancelled(callers[i], "not now")
    end
    helpers.write(gate, "")
    for i = 1, 10 do
      assert.equal(2 * i, pool.call.add(i, i):await())
    end
  end)

  it("makes room", function()
    open { threads = 1, max_queue = 3 }
    local gate = occupy()
    for _ = 1, 5 do
      local list = {}
      for i = 1, 3 do
        list[i] = pool.call.add(i, i)
      end
      local ready = pool:ready()
      assert.equal("pending", ready:state())
      assert.equal(3, pool:cancel_pending("not now"))
      assert.is_true(ready:wait(helpers.TIMEOUT))
      is_cancelled(list[3], "not now")
    end
    helpers.write(gate, "")
  end)

  it("rejects calls of tasks, which may go on", function()
    open { threads = 1 }
    local gate = helpers.new_path()
    local f = pool:run(function(path)
      local treadle = require "treadle" -- luacheck: ignore
      local g = treadle.worker.pool.call.add(1, 2)
      require("tasks").block(path)
      local ok, err = g:pawait()
      return ok, err.kind, err.message
    end, { gate })
    helpers.poll_until(function() return #helpers.lines(gate .. ".entered") == 1 end)
    assert.equal(1, pool:cancel_pending("not now"))
    helpers.write(gate, "")
    assert.same({ false, "cancelled", "not now" }, { f:await() })
  end)

  it("may be asked for by a task", function()
    open { threads = 1 }
    local gate = helpers.new_path()
    local f = pool:run(function(path)
      require("tasks").block(path)
      return require("treadle").worker.pool:cancel_pending("not now")
    end, { gate })
    helpers.poll_until(function() return #helpers.lines(gate .. ".entered") == 1 end)
    local g = pool.call.add(1, 2)
    helpers.write(gate, "")
    is_cancelled(g, "not now")
    assert.equal(1, f:await())
  end)

  it("lets a pool close without what waits", function()
    open { threads = 2 }
    local gate, busy = occupy()
    local f = pool.call.add(1, 2)
    local closing = treadle.spawn(function() pool:close() end)
    assert.equal(1, pool:cancel_pending("not now"))
    is_cancelled(f, "not now")
    helpers.write(gate, "")
    assert.is_true(closing:wait(helpers.TIMEOUT))
    assert.equal(1, busy[1]:await())
    assert.equal(0, pool:cancel_pending())
  end)

  it("takes from workers that are about to take, and they close all the same", function()
    for round = 1, 300 do
      open { threads = 2 }
      local list = {}
      for i = 1, round % 7 do
        list[i] = pool.call.add(i, i)
      end
      local closing = treadle.spawn(function() pool:close() end)
      pool:cancel_pending("not now")
      for i, f in ipairs(list) do
        assert.is_true(f:wait(helpers.TIMEOUT))
        if f:state() == "resolved" then
          assert.equal(2 * i, f:await())
        else
          is_cancelled(f, "not now")
        end
      end
      assert.is_true(closing:wait(helpers.TIMEOUT))
      local s = pool:stats()
      assert.equal(s.submitted, s.done + s.cancelled)
      pool = nil
    end
  end)
end)
