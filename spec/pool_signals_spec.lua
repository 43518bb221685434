--- The signals of a pool: workers, queued, inflight.
local helpers = require "helpers"
local treadle = require "treadle"
local core = require "treadle.core"
local news = require "treadle.news"

describe("the signals of a pool", function()
  local done, notes

  --- How often the home has been told that counts have changed.
  local function count_notes()
    notes = 0
    core.hooks {
      pool_event = function(record, event, ...)
        notes = notes + (event == "counts" and 1 or 0)
        return news.pool_event(record, event, ...)
      end,
    }
  end

  setup(function()
    done = helpers.watch()
    count_notes()
  end)

  teardown(function()
    core.hooks { pool_event = news.pool_event }
    done()
    helpers.clean()
  end)

  local function triple(signals)
    return { signals.workers:get(), signals.queued:get(), signals.inflight:get() }
  end

  --- Run the loop until `fn()`.
  local function reach(fn)
    local stop = treadle.now() + helpers.TIMEOUT
    while not fn() do
      assert(treadle.now() < stop, "it never came")
      treadle.poll(0.01)
    end
  end

  it("are the truth when nobody watches, and tell nothing", function()
    local pool = treadle.pool("tasks", { threads = 1 })
    local gate = helpers.new_path()
    notes = 0
    assert.same({ 1, 0, 0 }, triple(pool.signals))
    local held = pool.call.hold(gate)
    helpers.eventually(function() return helpers.read(gate .. ".entered") ~= "" end)
    local others = { pool.call.add(1, 2), pool.call.add(1, 2) }
    assert.same({ 1, 2, 1 }, triple(pool.signals))
    local both = treadle.computed(function()
      return pool.signals.queued() + pool.signals.inflight.value
    end)
    assert.equal(3, both:get())
    others[3] = pool.call.add(1, 2)
    assert.equal(4, both:get())
    helpers.write(gate, "open")
    treadle.all(others):await()
    held:await()
    assert.equal(0, both:get())
    assert.same({ 1, 0, 0 }, triple(pool.signals))
    pool:close()
    assert.same({ 0, 0, 0 }, triple(pool.signals))
    assert.equal(0, both:get())
    assert.equal(0, notes)
  end)

  it("are read once for all that is computed for one read", function()
    local pool = treadle.pool("tasks", { threads = 1 })
    local gauges, reads = core.gauges, 0
    local signals = pool.signals
    core.gauges = function(handle)
      reads = reads + 1
      return gauges(handle)
    end
    local sum = treadle.computed(function() return signals.queued() + signals.inflight() end)
    local all = treadle.computed(function() return sum() + signals.workers() + signals.queued() end)
    for i = 1, 3 do
      assert.equal(1, all:get())
      assert.equal(i, reads)
    end
    core.gauges = gauges
    pool:close()
  end)

  it("are read like signals, and cannot be set", function()
    local pool = treadle.pool("tasks", { threads = 1 })
    local s = pool.signals.workers
    assert.equal(pool.signals, pool.signals)
    assert.same({ 1, 1, 1, 1 }, { s:get(), s(), s.value, s:peek() })
    for _, set in ipairs {
      function() s:set(1) end, function() s(1) end, function() s.value = 1 end,
      function() s:update(print) end, function() pool.signals.workers = 1 end,
    } do
      local ok, err = pcall(set)
      assert.is_false(ok)
      assert.matches("pool_signals_spec.lua:%d+: .*cannot be set", err)
    end
    local ok, err = pcall(function() return pool.signals.running end)
    assert.is_false(ok)
    assert.matches("no signal 'running': it has workers, queued, inflight", err)
    ok, err = pool:run(function() return require("treadle").worker.pool.signals end):pawait()
    assert.is_false(ok)
    assert.matches("of the state that made it", err.message)
    assert.equal("signal of a pool 'workers' (1)", tostring(s))
    pool:close()
    assert.equal(0, s:get())
  end)

  it("let an effect see each rest, and nothing that never was", function()
    local pool = treadle.pool("tasks", { threads = 2, concurrency = 4 })
    local seen, most = {}, 0
    reach(function() return pool.signals.workers:get() == 2 end) -- the first alone was waited for
    local submitted = function() return pool:stats().submitted end
    local stop = treadle.effect(function()
      local now = triple(pool.signals)
      seen[#seen + 1] = now
      -- what was read last is never more than what is submitted by now
      assert(now[1] >= 0 and now[1] <= 2 and now[2] >= 0 and now[3] >= 0, "never was")
      assert(now[2] + now[3] <= submitted(), "more than there are")
      most = math.max(most, now[2] + now[3])
    end, { on_error = function(err) seen.problem = err end })
    for round = 1, 10 do
      local list = {}
      for i = 1, 100 do
        list[i] = pool:run(function(n)
          return require("treadle").worker.pool.call.add(n, 1):await()
        end, { i })
      end
      if round % 2 == 0 then
        for i = 1, 100, 7 do list[i]:cancel() end
      end
      treadle.all_settled(list):await()
      pool:drained():await()
      -- nothing changes any more: whatever was told is told
      reach(function()
        local last = seen[#seen]
        return last[2] == 0 and last[3] == 0
      end)
      assert.same({ 2, 0, 0 }, seen[#seen])
      local stats = pool:stats()
      assert.same({ stats.queued, stats.running }, { seen[#seen][2], seen[#seen][3] })
    end
    assert.is_nil(seen.problem)
    assert.is_true(most > 0)
    assert.is_true(#seen > 10)
    assert.is_true(notes > 0)
    stop()
    notes = 0
    local list = {}
    for i = 1, 100 do list[i] = pool.call.add(i, 1) end
    treadle.all(list):await()
    pool:drained():await()
    assert.equal(0, notes)
    pool:close()
  end)

  it("tell the home once a turn of its loop, however much changes", function()
    local pool = treadle.pool("tasks", { threads = 1 })
    local stop = treadle.effect(function() pool.signals.queued:get() end)
    pool:drained():await()
    treadle.poll()
    notes = 0
    local list = {}
    for i = 1, 1000 do list[i] = pool.call.add(i, 1) end
    treadle.poll()
    assert.is_true(notes <= 1)
    treadle.all(list):await()
    pool:drained():await()
    stop()
    pool:close()
  end)

  it("are let go of with the last effect, and watched anew", function()
    local pool = treadle.pool("tasks", { threads = 1 })
    local on, seen = treadle.signal(true), nil
    local busy = treadle.computed(function() return pool.signals.inflight() > 0 end)
    local stop = treadle.effect(function() seen = on:get() and tostring(busy:get()) or "off" end)
    assert.equal("false", seen)
    for _ = 1, 3 do
      local gate = helpers.new_path()
      local held = pool.call.hold(gate)
      reach(function() return seen == "true" end)
      on:set(false)
      treadle.flush()
      assert.equal("off", seen)
      helpers.write(gate, "open")
      held:await()
      pool:drained():await()
      notes = 0
      pool.call.add(1, 2):await()
      pool:drained():await()
      assert.equal(0, notes)
      on:set(true)
      treadle.flush()
      assert.equal("false", seen)
    end
    stop()
    pool:close()
  end)

  it("miss nothing that happens as the watch begins", function()
    local pool = treadle.pool("tasks", { threads = 2 })
    for i = 1, 300 do
      local call = pool.call.add(i, 1)
      local seen
      for _ = 1, i % 30 * 20 do end -- luacheck: ignore
      local stop = treadle.effect(function()
        seen = pool.signals.queued:get() + pool.signals.inflight:get()
      end)
      call:await()
      reach(function() return seen == 0 end)
      stop()
    end
    pool:close()
  end)

  it("follow a pool that grows and shrinks", function()
    local pool = treadle.pool("tasks", { threads = 1 })
    local seen = {}
    local stop = treadle.effect(function() seen[#seen + 1] = pool.signals.workers:get() end)
    pool:resize(3):await()
    reach(function() return seen[#seen] == 3 end)
    pool:resize(1):await()
    reach(function() return seen[#seen] == 1 end)
    pool:recycle():await()
    reach(function() return seen[#seen] == 1 and pool.signals.workers:peek() == 1 end)
    pool:close()
    treadle.flush()
    assert.equal(0, seen[#seen])
    stop()
  end)

  it("do not count a worker that is stuck in C, and count who replaces it", function()
    local other = treadle.pool("lock_tasks", { threads = 1 })
    local entered, seen = treadle.event(), {}
    local stop = treadle.effect(function() seen[#seen + 1] = other.signals.workers:get() end)
    local f = other.call.stick(treadle.mutex(), "mutex", entered, 20)
    assert.is_true(entered:wait(helpers.TIMEOUT))
    f:cancel { force = true }
    helpers.poll_until(function() return other:stats().written_off == 1 end, "written off")
    assert.equal("xx", other:run(function() return ("x"):rep(2) end):await())
    reach(function() return seen[#seen] == 1 end)
    assert.equal(1, other.signals.workers:get())
    for _, count in ipairs(seen) do
      assert.is_true(count <= 1)
    end
    other:close()
    treadle.flush()
    assert.equal(0, seen[#seen])
    stop()
  end)

  it("are 0 once the pool is terminated, or lost", function()
    local pool = treadle.pool("tasks", { threads = 2 })
    local seen
    local signals = pool.signals
    local stop = treadle.effect(function() seen = triple(signals) end)
    local list = {}
    for i = 1, 10 do list[i] = pool.call.sleep(1000) end
    reach(function() return seen[3] == 2 end)
    assert.same({ 2, 8, 2 }, seen)
    pool:terminate()
    treadle.flush()
    assert.same({ 0, 0, 0 }, seen)
    assert.same({ 0, 0, 0 }, triple(signals))
    treadle.all_settled(list):await()
    stop()
    pool:close()

    pool = treadle.pool("tasks", { threads = 1 })
    signals = pool.signals
    stop = treadle.effect(function() seen = triple(signals) end)
    assert.same({ 1, 0, 0 }, seen)
    pool = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    reach(function() return seen[1] == 0 end)
    stop()
  end)

  it("are consistent in one effect, computed values included", function()
    local pool = treadle.pool("tasks", { threads = 2 })
    local signals = pool.signals
    local sum = treadle.computed(function() return signals.queued() + signals.inflight() end)
    local twice = treadle.computed(function() return 2 * sum() end)
    local problem
    local function look()
      if twice:get() ~= 2 * (signals.queued() + signals.inflight()) or sum() * 2 ~= twice() then
        problem = "a mixed state"
      end
    end
    local stops = {}
    for round = 1, 200 do
      local list = {}
      for i = 1, 10 do list[i] = pool.call.add(i, 1) end
      stops[#stops + 1] = treadle.effect(look)
      treadle.poll()
      if round % 5 == 0 then
        for _, stop in ipairs(stops) do stop() end
        stops = {}
      end
      treadle.all(list):await()
    end
    for _, stop in ipairs(stops) do stop() end
    assert.is_nil(problem)
    pool:close()
  end)
end)
