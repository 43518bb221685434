--- The size of a pool: bounds, growing, shrinking, pool:resize.
local helpers = require "helpers"
local treadle = require "treadle"

--- A seed of its own for each run of the stress; TDL_SEED repeats one.
local SEED = tonumber(os.getenv("TDL_SEED")) or os.time()
local RESIZES = tonumber(os.getenv("TDL_RESIZES")) or 500

--- The numbers of the workers that run one job each at the same time: as many as there are jobs, or
-- this never ends.
local function meet(pool, count)
  local gate, list = helpers.new_path(), {}
  for i = 1, count do
    list[i] = pool:run(function(path)
      require("tasks").block(path)
      return require("treadle").worker.id
    end, { gate })
  end
  helpers.poll_until(function() return #helpers.lines(gate .. ".entered") == count end)
  helpers.write(gate, "open")
  local ids = treadle.all(list):await()
  table.sort(ids)
  return table.concat(ids, " ")
end

--- Worker threads of the pool with that name, as the kernel shows them.
local function count_threads(name)
  local count = 0
  for _, thread in ipairs(helpers.thread_names()) do
    count = count + (thread:match("^" .. name .. "/") and 1 or 0)
  end
  return count
end

--- Whether the pool has that size, and as many threads once the kernel has noticed.
local function has_size(pool, size)
  helpers.eventually(function() return count_threads(pool.name) == size end, function()
    return ("%d threads of '%s'"):format(size, pool.name)
  end)
  assert.equal(size, pool.threads)
end

describe("the size of a pool", function()
  local done

  setup(function()
    done = helpers.watch()
    -- the supervisor stays until the last pool of the process has ended
  end)

  teardown(function()
    done()
    helpers.clean()
  end)

  describe("options", function()
    local function refused(opts)
      local ok, err = pcall(function() treadle.pool("tasks", opts):close() end)
      assert.is_false(ok)
      return tostring(err)
    end

    it("threads is a fixed size, and cannot be given with bounds", function()
      assert.matches("'threads' is a fixed size: it cannot be given with 'min_threads'",
        refused { threads = 2, min_threads = 1 }, 1, true)
      assert.matches("'threads' is a fixed size: it cannot be given with 'max_threads'",
        refused { threads = 2, max_threads = 3 }, 1, true)
    end)

    it("bounds that are none are refused by name", function()
      assert.matches("option 'min_threads': a whole number of at least 0 expected, got -1",
        refused { min_threads = -1 }, 1, true)
      assert.matches("option 'max_threads': a whole number of at least 1 expected, got 0",
        refused { max_threads = 0 }, 1, true)
      assert.matches("option 'min_threads': at most 'max_threads', 2, expected, got 3",
        refused { min_threads = 3, max_threads = 2 }, 1, true)
      assert.matches("option 'max_threads': at most 1024", refused { max_threads = 1025 }, 1, true)
      assert.matches("option 'idle_timeout': seconds, a number of at least 0 expected, got -1",
        refused { max_threads = 2, idle_timeout = -1 }, 1, true)
    end)

    it("min_threads alone starts so many; max_threads alone starts one", function()
      local pool = treadle.pool("tasks", { min_threads = 3, name = "least" })
      assert.equal(3, pool.threads)
      assert.equal("1 2 3", meet(pool, 3))
      pool:close()
      pool = treadle.pool("tasks", { max_threads = 3, name = "most" })
      has_size(pool, 1)
      pool:close()
    end)
  end)

  describe("growing", function()
    it("starts a worker when a call waits and nobody is there to take it", function()
      local pool = treadle.pool("tasks", { min_threads = 1, max_threads = 4 })
      assert.equal("1 2 3 4", meet(pool, 4))
      assert.equal(4, pool.threads)
      assert.equal("pool 'tasks' (4 workers)", tostring(pool))
      pool:close()
    end)

    it("ends at max_threads", function()
      local pool = treadle.pool("tasks", { min_threads = 1, max_threads = 2, name = "top" })
      local gate, list = helpers.new_path(), {}
      for i = 1, 6 do
        list[i] = pool.call.block(gate, i)
      end
      helpers.eventually(function() return #helpers.lines(gate .. ".entered") == 2 end)
      has_size(pool, 2)
      helpers.write(gate, "open")
      assert.same({ 1, 2, 3, 4, 5, 6 }, treadle.all(list):await())
      assert.equal(2, pool.threads)
      pool:close()
    end)

    it("happens for the calls of its tasks, while the host does not look", function()
      local pool = treadle.pool("tasks", { min_threads = 1, max_threads = 3, name = "nested" })
      local gate = helpers.new_path()
      local f = pool:run(function(path)
        local own, list = require("treadle").worker.pool, {}
        for i = 1, 2 do
          list[i] = own.call.block(path, i)
        end
        require("helpers").eventually(function()
          return #require("helpers").lines(path .. ".entered") == 2
        end)
        require("helpers").write(path, "open")
        return #require("treadle").all(list):await(), own.threads
      end, { gate })
      helpers.eventually(function() return #helpers.lines(gate .. ".entered") == 2 end)
      assert.same({ 2, 3 }, { f:await() })
      pool:close()
    end)

    it("starts the first worker of a pool that has none", function()
      local pool = treadle.pool("tasks",
        { min_threads = 0, max_threads = 2, idle_timeout = 0, name = "zero" })
      helpers.poll_until(function() return pool.threads == 0 and count_threads("zero") == 0 end)
      assert.equal("pool 'zero' (0 workers)", tostring(pool))
      assert.same({}, pool:broadcast("id"):await())
      assert.equal(3, pool.call.add(1, 2):await())
      helpers.poll_until(function() return pool.threads == 0 and count_threads("zero") == 0 end)
      local last = pool.call.add(20, 22)
      pool:close()
      assert.equal(42, last:await())
    end)

    it("an empty pool closes, terminates, and is collected", function()
      for _, how in ipairs { "close", "terminate", "drop" } do
        local pool = treadle.pool("tasks",
          { min_threads = 0, max_threads = 2, idle_timeout = 0, name = how })
        helpers.poll_until(function() return pool.threads == 0 and count_threads(how) == 0 end)
        if how ~= "drop" then
          pool[how](pool)
          pool:close()
          local ok, err = pool.call.add(1, 2):pawait()
          assert.same({ false, "closed" }, { ok, err.kind })
        end
      end
      done()
    end)

    it("works with isolate", function()
      local pool = treadle.pool("tasks", { min_threads = 1, max_threads = 4, isolate = true })
      local list = {}
      for i = 1, 60 do
        list[i] = pool.call.add(i, 1)
      end
      for i = 1, 60 do
        assert.equal(i + 1, list[i]:await())
      end
      assert.equal("1 2 3 4", meet(pool, 4))
      pool:close()
    end)
  end)

  describe("shrinking", function()
    it("ends workers that have nothing to do, down to min_threads", function()
      local pool = treadle.pool("tasks",
        { min_threads = 1, max_threads = 4, idle_timeout = 0.01, name = "tide" })
      assert.equal("1 2 3 4", meet(pool, 4))
      helpers.poll_until(function() return pool.threads == 1 and count_threads("tide") == 1 end)
      assert.equal("1", meet(pool, 1))
      assert.matches("^1 2 [34]$", meet(pool, 3)) -- one more may start before the third is taken
      pool:close()
    end)

    it("keeps them without idle_timeout", function()
      local pool = treadle.pool("tasks", { min_threads = 1, max_threads = 3, name = "kept" })
      assert.equal("1 2 3", meet(pool, 3))
      treadle.sleep(0.3) -- longer than any pool dwells
      has_size(pool, 3)
      pool:close()
    end)

    it("does not interrupt the highest worker, whose job goes on", function()
      local pool = treadle.pool("tasks", { min_threads = 1, max_threads = 2, idle_timeout = 0,
        terminate_timeout = 0, name = "long" })
      local first, second = helpers.new_path(), helpers.new_path()
      local a = pool:run("block", { first, "a" }, { worker = 1 })
      helpers.eventually(function() return #helpers.lines(first .. ".entered") == 1 end)
      local b = pool.call.block(second, "b")
      helpers.eventually(function() return #helpers.lines(second .. ".entered") == 1 end)
      helpers.write(first, "open")
      assert.equal("a", a:await())
      helpers.poll_until(function() return pool.threads == 1 end)
      assert.equal(2, count_threads("long"))
      assert.equal("1", meet(pool, 1))
      helpers.write(second, "open")
      assert.equal("b", b:await())
      helpers.poll_until(function() return count_threads("long") == 1 end)
      pool:close()
    end)
  end)

  describe("pool:resize", function()
    local pool

    before_each(function()
      pool = treadle.pool("tasks", { threads = 2, name = "sized" })
    end)

    after_each(function()
      pool:close()
    end)

    it("adds workers, with the next numbers", function()
      pool:resize(5):await()
      has_size(pool, 5)
      assert.same({ 1, 2, 3, 4, 5 }, pool:broadcast("id"):await())
      assert.equal("1 2 3 4 5", meet(pool, 5))
    end)

    it("takes away those with the highest numbers", function()
      pool:resize(4):await()
      pool:resize(1):await()
      has_size(pool, 1)
      assert.same({ 1 }, pool:broadcast("id"):await())
      assert.equal(1, pool.call.id():await())
    end)

    it("says the new size at once, and refuses workers beyond it", function()
      pool:resize(3)
      assert.equal(3, pool.threads)
      assert.equal(3, pool:run("id", {}, { worker = 3 }):await())
      pool:resize(1)
      assert.equal("pool 'sized' (1 workers)", tostring(pool))
      assert.matches("option 'worker': 1 to 1 expected, got 2",
        helpers.error_here(function() pool:run("id", {}, { worker = 2 }) end), 1, true)
    end)

    it("takes bounds, too", function()
      pool:resize(1, 4):await()
      assert.equal(2, pool.threads)
      assert.equal("1 2 3 4", meet(pool, 4))
      pool:resize(0, 3):await()
      has_size(pool, 3)
      pool:resize(2)
      assert.equal(2, pool.threads)
    end)

    it("lets running jobs finish", function()
      local gate = helpers.new_path()
      local list = { pool.call.block(gate, "a"), pool.call.block(gate, "b") }
      helpers.eventually(function() return #helpers.lines(gate .. ".entered") == 2 end)
      local resized = pool:resize(1)
      assert.equal("pending", resized:state())
      helpers.write(gate, "open")
      assert.same({ "a", "b" }, treadle.all(list):await())
      resized:await()
      has_size(pool, 1)
    end)

    it("ends after terminate_timeout what does not end #computing", function()
      local other = treadle.pool("tasks", { threads = 2, terminate_timeout = 0.01, name = "force" })
      local gate = helpers.new_path()
      local f = other:run(function(path)
        require("tasks").note(path, "entered")
        while true do end
      end, { gate }, { worker = 2 })
      helpers.eventually(function() return #helpers.lines(gate) == 1 end)
      other:resize(1):await()
      local ok, err = f:pawait()
      assert.same({ false, "crashed" }, { ok, err.kind })
      has_size(other, 1)
      other:resize(2):await()
      assert.equal(2, other:run("id", {}, { worker = 2 }):await())
      other:close()
    end)

    it("writes off a worker that is stuck in C, and gives its number again", function()
      local other = treadle.pool("tasks", { threads = 2, terminate_timeout = 0.01, name = "stuck" })
      local gate = helpers.new_path()
      local f = other:run(function(path)
        require("tasks").note(path .. ".entered", "entered")
        os.execute("while [ ! -e " .. path .. " ]; do sleep 0.01; done")
      end, { gate }, { worker = 2 })
      helpers.eventually(function() return #helpers.lines(gate .. ".entered") == 1 end)
      other:resize(1):await()
      assert.equal("crashed", select(2, f:pawait()).kind)
      other:resize(3):await()
      assert.same({ 1, 2, 3 }, other:broadcast("id"):await())
      assert.equal("1 2 3", meet(other, 3))
      helpers.write(gate, "open")
      other:close()
    end)

    --- Holds worker 2 of a pool by one call, and sends 40 more to it; they log their numbers.
    local function send_many(to)
      local gate, log, list = helpers.new_path(), helpers.new_path(), {}
      local held = to:run("block", { gate, "x" }, { worker = 2 })
      helpers.eventually(function() return #helpers.lines(gate .. ".entered") == 1 end)
      for i = 1, 40 do
        list[i] = to:run(function(path, number)
          require("tasks").note(path, number)
          return require("treadle").worker.id
        end, { log, tostring(i) }, { worker = 2 })
      end
      return held, list, log, function() helpers.write(gate, "open") end
    end

    --- Each ran on that worker, one after the other.
    local function ran_in_order(list, log, worker)
      local expected, ids = {}, {}
      for i = 1, 40 do
        expected[i] = tostring(i)
        ids[list[i]:await()] = true
      end
      assert.same({ [worker] = true }, ids)
      assert.same(expected, helpers.lines(log))
    end

    it("lets a worker that goes do what was sent to it, in its order", function()
      local held, list, log, open = send_many(pool)
      local resized = pool:resize(1)
      assert.equal(1, pool:run("id"):await()) -- nothing else comes to it
      open()
      assert.equal("x", held:await())
      ran_in_order(list, log, 2)
      resized:await()
      has_size(pool, 1)
    end)

    it("hands what a stopped worker was sent to another one, in its order", function()
      local other = treadle.pool("tasks", { threads = 2, terminate_timeout = 0.05 })
      local held, list, log = send_many(other)
      other:resize(1):await()
      assert.equal("crashed", select(2, held:pawait()).kind)
      ran_in_order(list, log, 1)
      other:close()
    end)

    it("calls a worker back that has not left yet, and its job goes on", function()
      local gate = helpers.new_path()
      local f = pool:run("block", { gate, "kept" }, { worker = 2 })
      helpers.eventually(function() return #helpers.lines(gate .. ".entered") == 1 end)
      pool:resize(1)
      local resized = pool:resize(2)
      helpers.write(gate, "open")
      assert.equal("kept", f:await())
      resized:await()
      assert.equal(2, pool:run("id", {}, { worker = 2 }):await())
    end)

    it("grows again while the host does not look", function()
      pool:resize(1) -- the thread waits for the host, which reads its note later
      local log = helpers.new_path()
      pool:run(function(path)
        local own = require("treadle").worker.pool
        for _ = 1, 20 do
          own:resize(3)
          own:run("note", { path, "3" }, { worker = 3 }):await()
          own:resize(1)
        end
        require("helpers").write(path .. ".done", "")
      end, { log })
      helpers.eventually(function() return #helpers.lines(log) == 20 end)
      helpers.eventually(function() return io.open(log .. ".done") end)
      assert.equal(1, pool.threads)
    end)

    it("works from a task of the pool, also one whose worker has to go", function()
      local size, state = pool:run(function()
        local own = require("treadle").worker.pool
        local f = own:resize(1)
        return own.threads, f:state()
      end, {}, { worker = 2 }):await()
      assert.same({ 1, "resolved" }, { size, state })
      helpers.poll_until(function() return count_threads("sized") == 1 end)
      assert.equal(1, pool.call.id():await())
    end)

    it("works while the pool closes, and does nothing after it", function()
      for _, size in ipairs { 1, 4 } do
        local other = treadle.pool("tasks", { threads = 2 })
        local gate, list = helpers.new_path(), {}
        for i = 1, 6 do
          list[i] = other.call.hold(gate, i)
        end
        local closing = treadle.spawn(function() other:close() end)
        local resized = other:resize(size)
        helpers.write(gate, "open")
        closing:await()
        resized:await()
        assert.same({ 1, 2, 3, 4, 5, 6 }, treadle.all(list):await())
        other:resize(3):await()
        assert.equal("rejected", select(2, pcall(function()
          local f = other.call.add(1, 2)
          f:pawait()
          return f:state()
        end)))
      end
    end)

    it("goes together with a recycling that runs", function()
      pool:resize(4):await()
      local recycled, resized = pool:recycle(), pool:resize(2)
      treadle.all { recycled, resized }:await()
      assert.same({ 1, 2 }, pool:broadcast("id"):await())
      recycled, resized = pool:recycle(), pool:resize(6)
      treadle.all { recycled, resized }:await()
      has_size(pool, 6)
    end)

    it("runs teardown where a worker goes, and init where one comes", function()
      local log = helpers.new_path()
      helpers.module("coming", ([[
        local M, path = {}, %q
        local function note(text)
          local file = io.open(path, "a")
          file:write(text, "\n")
          file:close()
        end
        function M.up() note("up") end
        function M.down() note("down") end
        return M]]):format(log))
      local other = treadle.pool("coming", { threads = 1, init = "up", teardown = "down" })
      other:resize(2):await()
      assert.same({ "up", "up" }, helpers.lines(log))
      other:resize(1):await()
      assert.same({ "up", "up", "down" }, helpers.lines(log))
      other:close()
      assert.equal(4, #helpers.lines(log))
    end)

    it("checks its arguments at the caller's line", function()
      assert.equal("bad argument #1 to 'resize' (a whole number of at least 1 expected, got nil)",
        helpers.error_here(function() pool:resize() end))
      assert.equal("bad argument #1 to 'resize' (a whole number of at least 1 expected, got 0)",
        helpers.error_here(function() pool:resize(0) end))
      assert.equal("bad argument #1 to 'resize' (a whole number of at least 0 expected, got 1.5)",
        helpers.error_here(function() pool:resize(1.5, 2) end))
      assert.matches("#2 to 'resize' (a whole number of at least 1 expected, got string)",
        helpers.error_here(function() pool:resize(1, "2") end), 1, true)
      assert.equal("bad argument #2 to 'resize' (at least 3, the minimum, expected, got 2)",
        helpers.error_here(function() pool:resize(3, 2) end))
      assert.equal("bad argument #1 to 'resize' (at most 1024)",
        helpers.error_here(function() pool:resize(1025) end))
      assert.matches("bad argument #1 to 'resize' (pool expected, got number)",
        helpers.error_here(function() pool.resize(4) end), 1, true)
      assert.equal(2, pool.threads)
    end)
  end)

  describe("and the rest of the pool:", function()
    --- A pool that has lost its last worker.
    local function empty_pool(opts)
      opts.min_threads, opts.max_threads, opts.idle_timeout = 0, opts.max_threads or 2, 0
      opts.name = "none"
      local pool = treadle.pool("tasks", opts)
      helpers.poll_until(function() return pool.threads == 0 and count_threads("none") == 0 end)
      return pool
    end

    it("a key keeps its worker when the pool grows by itself", function()
      local pool = treadle.pool("tasks", { min_threads = 2, max_threads = 4 })
      local function places()
        local ids = {}
        for key = 1, 20 do
          ids[key] = pool:run("id", {}, { key = key }):await()
        end
        return ids
      end
      local before = places()
      assert.equal("1 2 3 4", meet(pool, 4))
      assert.same(before, places())
      pool:close()
    end)

    it("a call with a key, or one that a balancer places, starts the first worker", function()
      local pool = empty_pool { max_threads = 1 }
      assert.equal(1, pool:run("id", {}, { key = "a" }):await())
      pool:close()
      for _, balancer in ipairs { "round_robin", "least_busy", "random" } do
        pool = empty_pool { balancer = balancer }
        assert.equal(3, pool.call.add(1, 2):await())
        pool:close()
      end
    end)

    it("a balancer sees the workers that there are", function()
      local seen
      local pool = treadle.pool("tasks", { threads = 3, balancer = function(_, workers)
        seen = #workers
        return #workers
      end })
      assert.equal(3, pool.call.id():await())
      pool:resize(1)
      assert.equal(1, pool.call.id():await())
      assert.equal(1, seen)
      pool:resize(2)
      assert.equal(2, pool.call.id():await())
      pool:close()
    end)

    it("drained() resolves where no worker is left, and close() returns", function()
      local pool = empty_pool {}
      assert.is_true(pool:drained():wait(helpers.TIMEOUT))
      assert.equal(3, pool.call.add(1, 2):await())
      assert.is_true(pool:drained():wait(helpers.TIMEOUT))
      pool:close()
    end)

    it("more workers are room for those who wait for it", function()
      local pool = treadle.pool("tasks", { threads = 1, max_queue = 0, on_full = "wait" })
      local gate = helpers.new_path()
      local held = pool.call.block(gate, "x")
      helpers.eventually(function() return #helpers.lines(gate .. ".entered") == 1 end)
      local waiting = treadle.spawn(function() return pool.call.id():await() end)
      assert.is_false(waiting:wait(0))
      pool:resize(2)
      assert.equal(2, waiting:await())
      helpers.write(gate, "open")
      assert.equal("x", held:await())
      pool:close()
    end)

    it("a worker that goes says why, and its counts stay", function()
      local pool = treadle.pool("tasks", { threads = 2 })
      local reasons = {}
      pool:on("worker_exit", function(event) reasons[event.worker] = event.reason end)
      pool:run("id", {}, { worker = 2 }):await()
      pool:resize(1):await()
      helpers.poll_until(function() return reasons[2] end)
      assert.same({ [2] = "resized" }, reasons)
      local stats = pool:stats()
      assert.equal(1, stats.workers[2].jobs)
      assert.equal(0, stats.restarts)
      pool:close()
      assert.equal("closed", reasons[1])
    end)
  end)

  -- Every call is answered once, with its own number; `worker =` calls among them, nested ones, and
  -- such that fail. The size changes after each burst, from the host or from a task.
  local function stress(opts, bursts)
    local random = math.random
    math.randomseed(SEED)
    opts.name = "stress"
    local pool = treadle.pool("tasks", opts)
    local function nested(n)
      return require("treadle").worker.pool.call.add(n, 0):await()
    end
    local function resizing(n, size)
      require("treadle").worker.pool:resize(size)
      return n
    end
    local answered, number, list = {}, 0, {}
    local function call()
      number = number + 1
      local n, which = number, random(10)
      local f
      if which == 1 then
        local is_there -- a task may have taken that one away since its number was looked up
        is_there, f = pcall(pool.run, pool, "add", { n, 0 }, { worker = random(pool.threads) })
        f = is_there and f or pool.call.add(n, 0)
      elseif which == 2 then
        f = pool:run(nested, { n })
      elseif which == 3 then
        f = pool:run(resizing, { n, random(16) })
      else
        f = pool.call.add(n, 0)
      end
      list[#list + 1] = f:and_then(function(result)
        assert(result == n and not answered[n])
        answered[n] = true
      end)
    end
    for burst = 1, bursts do
      for _ = 1, random(0, 20) do
        call()
      end
      if random(4) == 1 then
        pool:resize(random(0, 8), random(8, 16))
      else
        pool:resize(random(16))
      end
      if random(8) == 1 then
        pool:recycle()
      end
      if random(5) == 1 then
        treadle.poll(random(3) / 1000)
      end
      if burst % 50 == 0 then
        treadle.all(list):await()
        list = {}
      end
    end
    treadle.all(list):await()
    for n = 1, number do
      assert(answered[n], ("seed %d: call %d has no answer"):format(SEED, n))
    end
    pool:resize(2):await()
    has_size(pool, 2)
    assert.equal("1 2", meet(pool, 2))
    pool:close()
  end

  it(("answers every call once in %d random resizes (seed %d)"):format(RESIZES, SEED), function()
    stress({ threads = 2 }, RESIZES)
  end)

  it("the same with isolate and concurrency", function()
    stress({ threads = 4, isolate = true }, RESIZES / 10)
    stress({ threads = 4, concurrency = 4, recycle_after = 3 }, RESIZES / 10)
  end)

  it("leaves no thread and no descriptor behind", function()
    done()
  end)
end)
