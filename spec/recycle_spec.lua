--- Fresh states for workers: on demand, after jobs, for every job, and beyond a cap of memory.
local helpers = require "helpers"
local treadle = require "treadle"

local MIB = 2 ^ 20

describe("a worker's state", function()
  local done

  setup(function()
    helpers.module("stateful", [[
      local treadle = require "treadle"
      local log = treadle.worker.data
      local function append(text)
        if log then
          local f = io.open(log, "a") f:write(text, "\n") f:close()
        end
      end
      local M, n, kept = {}, 0, {}
      function M.count() n = n + 1 return n end
      function M.keep(bytes) kept[#kept + 1] = ("x"):rep(bytes) return n end
      function M.hold(gate) return require("tasks").hold(gate) end
      function M.endless(gate) require("tasks").block(gate, "x") end
      function M.nested(gate)
        local f = treadle.worker.pool.call.count()
        require("tasks").hold(gate)
        return f:await()
      end
      function M.recycle_own() return treadle.worker.pool:recycle():await() end
      function M.tables() local t = {} while true do t[#t + 1] = { #t } end end
      function M.tables_in_pcall() while true do pcall(M.tables) end end
      function M.one_string() return #("x"):rep(1e9) end
      function M.one_string_in_pcall() return (pcall(M.one_string)) end
      function M.garbage(times)
        local n = 0
        for i = 1, times do local t = { i, i } n = n + #t end
        return n
      end
      function M.init() append "init" end
      function M.teardown() append "teardown" end
      return M
    ]])
    helpers.module("loads_once", [[
      local log = require("treadle").worker.data
      local f = io.open(log, "a") f:write "load\n" f:close()
      local n = 0
      for _ in io.lines(log) do n = n + 1 end
      assert(n == 1, "loaded too often")
      return { add = function(a, b) return a + b end }
    ]])
    done = helpers.watch()
  end)

  teardown(function()
    done()
    helpers.clean()
  end)

  local function new_pool(options)
    return treadle.pool("stateful", options)
  end

  describe("that is recycled", function()
    it("is fresh, in every worker", function()
      local pool = new_pool { threads = 2 }
      for worker = 1, 2 do
        assert.equal(1, pool:run("count", {}, { worker = worker }):await())
      end
      pool:recycle():await()
      for worker = 1, 2 do
        assert.equal(1, pool:run("count", {}, { worker = worker }):await())
      end
      pool:close()
    end)

    it("finishes its jobs first, and the queue goes on", function()
      local pool = new_pool { threads = 1, concurrency = 2 }
      local gate = helpers.new_path()
      local held = pool.call.hold(gate)
      helpers.eventually(function() return #helpers.lines(gate .. ".entered") == 1 end)
      local recycled = pool:recycle()
      local count = pool.call.count()
      assert.is_false(recycled:wait(0))
      helpers.write(gate, "open")
      held:await()
      recycled:await()
      assert.equal(1, count:await())
      pool:close()
    end)

    it("lets a job's calls on its own pool end", function()
      local pool = new_pool { threads = 1 }
      local gate = helpers.new_path()
      local nested = pool.call.nested(gate)
      helpers.eventually(function() return #helpers.lines(gate .. ".entered") == 1 end)
      local recycled = pool:recycle()
      helpers.write(gate, "open")
      assert.equal(1, nested:await())
      recycled:await()
      pool:close()
    end)

    it("is replaced by force when a job hangs", function()
      local pool = new_pool { threads = 1, terminate_timeout = 0.01 }
      local gate = helpers.new_path()
      local hung = pool.call.endless(gate)
      helpers.eventually(function() return #helpers.lines(gate .. ".entered") == 1 end)
      pool:recycle():await()
      assert.equal("crashed", select(2, hung:pawait()).kind)
      assert.equal(1, pool.call.count():await())
      pool:close()
    end)

    it("may be a task's own", function()
      local pool = new_pool { threads = 1 }
      pool.call.count():await()
      pool.call.recycle_own():await()
      helpers.poll_until(function() return pool.call.count():await() == 1 end)
      pool:close()
    end)

    it("runs teardown and init", function()
      local log = helpers.new_path()
      local pool = new_pool { threads = 1, data = log, init = "init", teardown = "teardown" }
      pool:recycle():await()
      pool:close()
      assert.same({ "init", "teardown", "init", "teardown" }, helpers.lines(log))
    end)

    it("twice at once is no harm, and ends with its pool", function()
      local pool = new_pool { threads = 2 }
      local first, second = pool:recycle(), pool:recycle()
      first:await()
      second:await()
      local third = pool:recycle()
      pool:close()
      assert.is_true(third:wait(helpers.TIMEOUT))
    end)
  end)

  it("is fresh after so many jobs", function()
    local pool = new_pool { threads = 1, recycle_after = 3 }
    local found = {}
    for i = 1, 7 do
      found[i] = pool.call.count():await()
    end
    assert.same({ 1, 2, 3, 1, 2, 3, 1 }, found)
    pool:close()
  end)

  it("is fresh for every job of an isolating pool", function()
    local pool = new_pool { threads = 2, isolate = true, concurrency = 10 }
    local list = {}
    for i = 1, 50 do
      list[i] = pool.call.count()
    end
    for _, n in ipairs(treadle.all(list):await()) do
      assert.equal(1, n)
    end
    pool:close()
  end)

  it("is fresh after a job that left too much behind", function()
    local pool = new_pool { threads = 1, recycle_memory = 8 * MIB }
    pool.call.count():await()
    pool.call.keep(MIB):await()
    assert.equal(2, pool.call.count():await())
    pool.call.keep(16 * MIB):await()
    assert.equal(1, pool.call.count():await())
    pool.call.garbage(1e6):await()
    assert.equal(2, pool.call.count():await())
    pool:close()
  end)

  it("that cannot load its module any more closes the pool", function()
    local log = helpers.new_path()
    local pool = treadle.pool("loads_once", { threads = 1, data = log })
    pool:recycle():wait(helpers.TIMEOUT)
    helpers.eventually(function() -- the worker's last note is in the inbox
      return not table.concat(helpers.thread_names(), "\n"):find("loads_onc/", 1, true)
    end)
    local _, err = pool.call.add(1, 2):pawait() -- comes home behind it
    assert.same({ "load", "add" }, { err.kind, err.task })
    assert.matches("loaded too often", err.message, 1, true)
    pool:close()
    assert.equal(1 + 3, #helpers.lines(log))
  end)

  describe("that exceeds max_memory", function()
    local pool

    before_each(function()
      pool = new_pool { threads = 2, max_memory = 32 * MIB }
      for worker = 1, 2 do
        pool:run("count", {}, { worker = worker }):await()
      end
    end)

    after_each(function() pool:close() end)

    for _, task in ipairs { "tables", "tables_in_pcall", "one_string", "one_string_in_pcall" } do
      it("is replaced, and its job alone fails: " .. task, function()
        local gate = helpers.new_path()
        local neighbour = pool:run("hold", { gate }, { worker = 2 })
        local ok, err = pool:run(task, {}, { worker = 1 }):pawait()
        assert.same({ false, "memory", task }, { ok, err.kind, err.task })
        assert.matches("max_memory", err.message, 1, true)
        assert.equal(1, pool:run("count", {}, { worker = 1 }):await())
        helpers.write(gate, "open")
        neighbour:await()
        assert.equal(2, pool:run("count", {}, { worker = 2 }):await())
      end)
    end

    it("only by garbage goes on", function()
      assert.equal(6e6, pool:run("garbage", { 3e6 }, { worker = 1 }):await())
      assert.equal(2, pool:run("count", {}, { worker = 1 }):await())
    end)
  end)

  it("without the memory to load says so", function()
    local ok, err = pcall(new_pool, { threads = 1, max_memory = 1000 })
    assert.same({ false, "memory" }, { ok, err.kind })
  end)
end)
