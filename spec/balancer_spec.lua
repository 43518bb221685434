--- balancer and key: which worker runs a call.
local helpers = require "helpers"
local treadle = require "treadle"

describe("a pool's calls", function()
  local pools = {}
  local done

  local function open(options)
    local pool = treadle.pool("tasks", options)
    pools[#pools + 1] = pool
    return pool
  end

  --- Occupy one worker until the gate is opened.
  local function occupy(pool, worker)
    local gate = helpers.new_path()
    local f = pool:run("hold", { gate }, { worker = worker })
    helpers.poll_until(function() return #helpers.lines(gate .. ".entered") == 1 end)
    return gate, f
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

  describe("with a balancer", function()
    it("round_robin go to one worker after the other, free or not", function()
      local pool = open { threads = 3, balancer = "round_robin" }
      local gate = occupy(pool, 2)
      local list = {}
      for i = 1, 9 do
        list[i] = pool.call.id()
      end
      assert.equal(1, list[1]:await())
      assert.equal("pending", list[2]:state())
      helpers.write(gate, "open")
      assert.same({ 1, 2, 3, 1, 2, 3, 1, 2, 3 }, treadle.all(list):await())
    end)

    it("least_busy go where least waits and runs", function()
      local pool = open { threads = 3, balancer = "least_busy" }
      local one, two = occupy(pool, 1), occupy(pool, 2)
      for _ = 1, 20 do
        assert.equal(3, pool.call.id():await())
        -- its end is counted before its result arrives
      end
      helpers.write(one, "open")
      helpers.write(two, "open")
    end)

    it("least_busy are spread evenly over workers that do nothing", function()
      local pool = open { threads = 4, balancer = "least_busy" }
      local counts = { 0, 0, 0, 0 }
      for _ = 1, 40 do
        local id = pool.call.id():await()
        counts[id] = counts[id] + 1
      end
      assert.same({ 10, 10, 10, 10 }, counts)
    end)

    it("random reach every worker", function()
      local pool = open { threads = 3, balancer = "random" }
      local seen, count = {}, 0
      helpers.poll_until(function()
        local id = pool.call.id():await()
        count = count + (seen[id] and 0 or 1)
        seen[id] = true
        return count == 3
      end)
    end)

    it("of one's own go where it says, and it sees what waits and runs", function()
      local jobs, views = {}, {}
      local wanted = 2
      local pool = open { threads = 2, balancer = function(job, workers)
        jobs[#jobs + 1] = job
        local view = {}
        for i, w in ipairs(workers) do
          view[i] = { w.id, w.queued, w.running }
        end
        views[#views + 1] = view
        return wanted
      end }
      assert.equal(2, pool.call.id():await())
      wanted = 1
      assert.equal(1, pool:run("id", {}, { priority = "high" }):await())
      local gate = occupy(pool, 2)
      local waiting = pool:run("add", { 1, 1 }, { worker = 2 }) -- not asked about
      assert.equal(1, pool:run(function() return require("treadle").worker.id end):await())
      helpers.write(gate, "open")
      assert.equal(2, waiting:await())
      assert.same({
        { task = "id", priority = "normal" },
        { task = "id", priority = "high" },
        { task = "function", priority = "normal" },
      }, jobs)
      assert.same({
        { { 1, 0, 0 }, { 2, 0, 0 } },
        { { 1, 0, 0 }, { 2, 0, 0 } },
        { { 1, 0, 0 }, { 2, 1, 1 } },
      }, views)
    end)

    it("that chooses nobody raise at the caller", function()
      for _, wrong in ipairs { 0, 3, 1.5, "1", false } do
        local pool = open { threads = 2, balancer = function() return wrong end }
        local ok, err = pcall(pool.call.id)
        assert.is_false(ok)
        assert.matches("the balancer chose worker " .. tostring(wrong), err, 1, true)
      end
    end)

    it("go to the shared queue by default", function()
      for _, balancer in ipairs { false, "shared" } do
        local pool = open { threads = 2, balancer = balancer or nil }
        local gate = occupy(pool, 1)
        for _ = 1, 10 do
          assert.equal(2, pool.call.id():await())
        end
        helpers.write(gate, "open")
      end
    end)

    it("name words that are none", function()
      local message = helpers.error_here(function() treadle.pool("tasks", { balancer = "rnd" }) end)
      assert.matches("option 'balancer': a function, 'shared', 'round_robin', 'least_busy' or "
        .. "'random' expected, got 'rnd', did you mean 'random'?", message, 1, true)
    end)

    it("are bounded by max_queue", function()
      local pool = open { threads = 2, balancer = "round_robin", max_queue = 1 }
      local one, two = occupy(pool, 1), occupy(pool, 2)
      local f = pool.call.id()
      local _, err = pool.call.id():pawait()
      assert.equal("queue_full", err.kind)
      helpers.write(one, "open")
      helpers.write(two, "open")
      assert.is_number(f:await())
    end)
  end)

  describe("with a key", function()
    it("run on one worker, whatever the balancer", function()
      for _, balancer in ipairs { "shared", "round_robin", "least_busy", "random" } do
        local pool = open { threads = 4, balancer = balancer }
        for _, key in ipairs { "a", "b", 1, 2, 1.5, true, false, "" } do
          local first = pool:run("id", {}, { key = key }):await()
          for _ = 1, 5 do
            assert.equal(first, pool:run("id", {}, { key = key }):await())
          end
        end
      end
    end)

    it("are spread over the workers, and most keep theirs where there are more of them", function()
      local few, more = open { threads = 4 }, open { threads = 5 }
      local moved, counts = 0, { 0, 0, 0, 0, 0 }
      for i = 1, 200 do
        local a = few:run("id", {}, { key = "key" .. i }):await()
        local b = more:run("id", {}, { key = "key" .. i }):await()
        counts[b] = counts[b] + 1
        if a ~= b then
          moved = moved + 1
          assert.equal(5, b) -- only to the new one
        end
      end
      assert.equal(counts[5], moved)
      for i = 1, 5 do
        assert.is_true(counts[i] > 10, table.concat(counts, " ")) -- 40 each; the hash is fixed
      end
    end)

    it("tell a number from its text, and 0 is -0", function()
      local core = require "treadle.core"
      local pool = open { threads = 64 }
      local function slot(key)
        return core.pool_slot_of(pool._handle, key)
      end
      assert.equal(slot(0), slot(-0))
      local differ = 0
      for i = 1, 10 do
        differ = differ + (slot(i) ~= slot(tostring(i)) and 1 or 0)
      end
      assert.is_true(differ > 5)
    end)

    it("go to the same worker from tasks as from the host", function()
      local pool = open { threads = 4 }
      for i = 1, 20 do
        local key = i % 2 == 0 and i or "k" .. i
        local host = pool:run("id", {}, { key = key }):await()
        local task = pool:run(function(k)
          return require("treadle").worker.pool:run("id", {}, { key = k }):await()
        end, { key }):await()
        assert.equal(host, task)
      end
    end)

    it("start only when the one before has ended", function()
      local pool = open { threads = 2 }
      local log = helpers.new_path()
      local list = {}
      for i = 1, 5 do
        list[i] = pool:run("log_twice", { log, tostring(i) }, { key = "k" })
      end
      treadle.all(list):await()
      local wanted = {}
      for i = 1, 5 do
        wanted[#wanted + 1] = "start " .. i
        wanted[#wanted + 1] = "end " .. i
      end
      assert.same(wanted, helpers.lines(log))
    end)

    for _, threads in ipairs { 1, 2, 8 } do
      it(("keep their order under load, with %d workers"):format(threads), function()
        local seed = os.time()
        math.randomseed(seed)
        local pool = open { threads = threads }
        local next_of, list = {}, {}
        local function check(key, number)
          _G.last_of = _G.last_of or {}
          local fine = (_G.last_of[key] or 0) == number - 1
          _G.last_of[key] = number
          return fine
        end
        for i = 1, 5000 do
          if math.random(4) == 1 then
            list[i] = pool.call.sleep(0) -- others among them
          else
            local key = "key" .. math.random(17)
            next_of[key] = (next_of[key] or 0) + 1
            list[i] = pool:run(check, { key, next_of[key] }, { key = key })
          end
        end
        for _, fine in ipairs(treadle.all(list):await()) do
          assert.is_true(fine == true or fine == 0, "seed " .. seed)
        end
      end)
    end

    it("outlive the state of their worker", function()
      local pool = open { threads = 2, recycle_after = 5 }
      local log, list = helpers.new_path(), {}
      for i = 1, 50 do
        list[i] = pool:run("note", { log, tostring(i) }, { key = "k" })
      end
      treadle.all(list):await()
      for i, line in ipairs(helpers.lines(log)) do
        assert.equal(tostring(i), line)
      end
    end)

    it("refuse what is no key, and a key beside a worker", function()
      local pool = open { threads = 1 }
      for _, key in ipairs { {}, print, 0 / 0 } do
        assert.matches("option 'key': a string, number or boolean expected", helpers.error_here(
          function() pool:run("id", {}, { key = key }) end), 1, true)
      end
      assert.matches("'worker' and 'key' both choose a worker",
        helpers.error_here(function() pool:run("id", {}, { key = 1, worker = 1 }) end), 1, true)
    end)
  end)
end)
