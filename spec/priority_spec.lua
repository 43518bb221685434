--- priority: per call and per task; nothing is starved.
local helpers = require "helpers"
local treadle = require "treadle"

--- Of so many jobs that a worker takes one is of the lowest rank; TDL_BACKLOG_TURNS.
local TURNS = 16

describe("priority", function()
  local pools = {}
  local done

  local function open(options, tasks)
    local pool = treadle.pool(tasks or "tasks", options)
    pools[#pools + 1] = pool
    return pool
  end

  --- A pool whose workers all wait for the gate.
  local function held(threads, tasks)
    local pool, gate = open({ threads = threads }, tasks), helpers.new_path()
    for i = 1, threads do
      pool:run(function(path, n) require("tasks").hold(path, n) end, { gate, i }, { worker = i })
    end
    helpers.poll_until(function() return #helpers.lines(gate .. ".entered") == threads end)
    return pool, gate
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

  it("starts the high ones first and the low ones last, each in the order of the calls", function()
    local pool, gate = held(1)
    local log = helpers.new_path()
    local list = {}
    for i = 1, 3 do
      for _, priority in ipairs { "low", "normal", "high" } do
        list[#list + 1] = pool:run("note", { log, priority .. i }, { priority = priority })
      end
    end
    helpers.write(gate, "open")
    treadle.all(list):await()
    assert.same({ "high1", "high2", "high3", "normal1", "normal2", "normal3", "low1", "low2",
      "low3" }, helpers.lines(log))
  end)

  it("of a task counts for its calls, and a call's own goes before it", function()
    helpers.module("ranked", [[
      local treadle = require "treadle"
      local note = require("tasks").note
      return {
        urgent = treadle.task { fn = note, priority = "high" },
        later = treadle.task { fn = note, priority = "low" },
        plain = note,
      }
    ]])
    local pool, gate = held(1, "ranked")
    local log = helpers.new_path()
    local list = {
      pool.call.later(log, "later"), pool.call.plain(log, "plain"), pool.call.urgent(log, "urgent"),
      pool:run("later", { log, "later, but high" }, { priority = "high" }),
      pool:run("urgent", { log, "urgent, but low" }, { priority = "low" }),
    }
    helpers.write(gate, "open")
    treadle.all(list):await()
    assert.same({ "urgent", "later, but high", "plain", "later", "urgent, but low" },
      helpers.lines(log))
  end)

  it("counts for nested calls, too", function()
    local pool, gate = held(1)
    local log = helpers.new_path()
    local f = pool:run(function(path)
      local own = require("treadle").worker.pool
      own:run("note", { path, "low" }, { priority = "low" })
      own:run("note", { path, "normal" })
      own:run("note", { path, "high" }, { priority = "high" })
    end, { log })
    local last = pool.call.note(log, "before them")
    helpers.write(gate, "open")
    f:await()
    last:await()
    pool:drained():await()
    assert.same({ "high", "before them", "normal", "low" }, helpers.lines(log))
  end)

  it(("starves nothing: of %d jobs one is normal and one low, whatever is high"):format(TURNS),
    function()
      local pool, gate = held(1)
      local log = helpers.new_path()
      local list = {}
      for _, priority in ipairs { "high", "normal", "low" } do
        for _ = 1, 100 do
          list[#list + 1] = pool:run("note", { log, priority }, { priority = priority })
        end
      end
      helpers.write(gate, "open")
      treadle.all(list):await()
      local seen, started = { high = 0, normal = 0, low = 0 }, helpers.lines(log)
      for i, priority in ipairs(started) do
        seen[priority] = seen[priority] + 1
        if seen.high < 100 and i % TURNS == 0 then
          assert.equal(i / TURNS, seen.low)
          assert.equal(i / TURNS, seen.normal)
        end
      end
      assert.same({ high = 100, normal = 100, low = 100 }, seen)
    end)

  for _, threads in ipairs { 1, 2, 8 } do
    it(("ends a low call under a stream of high ones, with %d workers"):format(threads), function()
      local pool = open { threads = threads }
      local over = false
      local low = pool:run("echo", { "low" }, { priority = "low" })
      low:finally(function() over = true end)
      local function keep_busy()
        while not over do
          pool:run("echo", { 1 }, { priority = "high" }):await()
        end
      end
      local streams = {}
      for i = 1, 4 * threads do -- there is always a high one in the queue
        streams[i] = treadle.spawn(keep_busy)
      end
      assert.is_true(low:wait(helpers.TIMEOUT))
      assert.is_true(treadle.all(streams):wait(helpers.TIMEOUT))
    end)

    it(("keeps the order of the calls of each, with %d workers"):format(threads), function()
      local seed = os.time()
      math.randomseed(seed)
      local pool = open { threads = threads }
      local names, list = { "high", "normal", "low" }, {}
      local counts = { high = 0, normal = 0, low = 0 }
      for _ = 1, 3000 do
        local name = names[math.random(3)]
        counts[name] = counts[name] + 1
        list[#list + 1] = pool:run(function(rank, number)
          _G.ranks = _G.ranks or {}
          local last = _G.ranks[rank] or 0
          _G.ranks[rank] = number
          return last < number -- this worker's are in order
        end, { name, counts[name] }, { priority = name })
      end
      for _, in_order in ipairs(treadle.all(list):await()) do
        assert.is_true(in_order, "seed " .. seed)
      end
    end)
  end

  it("does not let calls for one worker starve those for all", function()
    local pool = open { threads = 1 }
    local over = false
    local streams = {}
    for i = 1, 3 do
      streams[i] = treadle.spawn(function()
        while not over do
          pool:run("echo", { 1 }, { worker = 1 }):await()
        end
      end)
    end
    local f = pool.call.echo("shared")
    f:finally(function() over = true end)
    assert.is_true(f:wait(helpers.TIMEOUT))
    assert.is_true(treadle.all(streams):wait(helpers.TIMEOUT))
  end)

  it("is forgotten when a call is cancelled, and when the pool ends", function()
    local pool, gate = held(1)
    local list = {}
    for _, priority in ipairs { "high", "normal", "low" } do
      for i = 1, 10 do
        list[#list + 1] = pool:run("add", { i, 0 }, { priority = priority })
      end
    end
    for i = 1, #list, 2 do
      list[i]:cancel()
    end
    pool:terminate()
    for i, f in ipairs(list) do
      local _, err = f:pawait()
      assert.equal(i % 2 == 1 and "cancelled" or "closed", err.kind)
    end
    helpers.write(gate, "open")
  end)

  it("is done by a pool that closes", function()
    local pool, gate = held(2)
    local list = {}
    for _, priority in ipairs { "high", "normal", "low" } do
      for i = 1, 100 do
        list[#list + 1] = pool:run("add", { i, 0 }, { priority = priority })
      end
    end
    helpers.write(gate, "open")
    pool:close()
    for i, f in ipairs(list) do
      assert.equal((i - 1) % 100 + 1, f:await())
    end
  end)

  it("names words that are none", function()
    local pool = open { threads = 1 }
    local given = { priority = "hihg" }
    assert.matches("option 'priority': 'high', 'normal' or 'low' expected, got 'hihg', did you "
      .. "mean 'high'?", helpers.error_here(function() pool:run("add", {}, given) end), 1, true)
    given = { fn = print, priority = 1 }
    assert.matches("option 'priority': 'high', 'normal' or 'low' expected, got 1",
      helpers.error_here(function() treadle.task(given) end), 1, true)
  end)
end)
