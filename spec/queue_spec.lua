--- treadle.queue: functions of the host that wait for their turn.
local helpers = require "helpers"
local treadle = require "treadle"

local TIMEOUT = helpers.TIMEOUT

--- Let everything that is ready run.
local function settle()
  for _ = 1, 10 do
    treadle.poll()
  end
end

describe("a queue", function()
  local done

  setup(function()
    done = helpers.watch()
  end)

  teardown(function()
    done()
    helpers.clean()
  end)

  --- A function that ends when told, and what it does then.
  local function gated(log, name, ...)
    local gate, open, fail = treadle.future()
    local results, n = { ... }, select("#", ...)
    return function()
      log[#log + 1] = "+" .. name
      gate:await()
      log[#log + 1] = "-" .. name
      return unpack(results, 1, n)
    end, open, fail
  end

  it("runs at most so many at once, in the order of adding", function()
    local q, log, opens, list = treadle.queue { limit = 2 }, {}, {}, {}
    assert.equal(2, q.limit)
    for i = 1, 5 do
      local fn
      fn, opens[i] = gated(log, i, i * 10, nil)
      list[i] = q:add(fn)
    end
    assert.same({ "+1", "+2" }, log)
    assert.equal("queue (3 queued, 2 active)", tostring(q))
    opens[2]()
    settle()
    assert.same({ "+1", "+2", "-2", "+3" }, log)
    opens[4]() -- before it starts
    opens[1]()
    settle()
    assert.same({ "+1", "+2", "-2", "+3", "-1", "+4", "-4", "+5" }, log)
    opens[3]()
    opens[5]()
    assert.same({ 10, 20, 30, 40, 50 }, treadle.all(list):await())
    assert.equal(2, select("#", list[1]:await()))
  end)

  it("has as many at once as there are cores, unless told", function()
    assert.equal(treadle.cores(), treadle.queue().limit)
  end)

  it("tells the first, each, and that all are settled", function()
    local q, log = treadle.queue { limit = 3 }, {}
    local function note(name)
      return function(value, entry)
        log[#log + 1] = ("%s %s %s"):format(name, tostring(value), entry.meta)
      end
    end
    assert.equal(q, q:race(note "race"):each(note "each"):each(note "also")
      :all_settled(function(entries)
        local ids = {}
        for i, entry in ipairs(entries) do
          ids[i] = entry.id .. entry.state
        end
        log[#log + 1] = table.concat(ids, " ")
      end))
    for round = 0, 1 do
      log = {}
      local a, open_a = gated({}, "a", "A")
      local b, open_b = gated({}, "b", "B")
      local c, _, fail_c = gated({}, "c")
      q:add(a, { meta = "a" })
      q:add(b, { meta = "b" })
      q:add(c, { meta = "c" })
      fail_c("broken")
      settle()
      assert.same({}, log) -- the first that completes
      open_b()
      settle()
      open_a()
      settle()
      assert.same({ "race B b", "each B b", "also B b", "each A a", "also A a",
        ("%dfailed %dcompleted %dcompleted"):format(3 + 3 * round, 2 + 3 * round, 1 + 3 * round) },
        log)
    end
  end)

  it("is not empty while what waits for a result adds more", function()
    local q, times = treadle.queue { limit = 1 }, 0
    q:all_settled(function() times = times + 1 end)
    local added = 0
    q:each(function()
      if added < 3 then
        added = added + 1
        q:add(function() end)
      end
    end)
    local f = q:add(function() return 1 end)
    f:and_then(function()
      q:add(function() end)
    end)
    treadle.spawn(function()
      f:await()
      q:add(function() end)
    end)
    q:drained():await()
    settle()
    assert.equal(1, times)
    assert.equal(6, q:status("completed"))
  end)

  it("knows how each stands", function()
    local q, log = treadle.queue { limit = 2 }, {}
    assert.same({ 0, 0, 0, {} }, { q:status(), q:status("completed"),
      q:status("completed", "percent"), q:status("queued", "raw") })
    assert.is_true(q:available())
    local a, open_a = gated(log, "a", "A")
    local b, _, fail_b = gated(log, "b")
    local c, open_c = gated(log, "c")
    local before = treadle.now()
    q:add(a, { meta = { 1 } })
    assert.is_true(q:available())
    local g = q:add(b)
    assert.is_false(q:available())
    q:add(c)
    assert.same({ 1, 2, 0, 0, 3 }, { q:status("queued"), q:status("active"),
      q:status("completed"), q:status("failed"), q:status("total") })
    fail_b({ code = 7 })
    assert.equal("rejected", (function() g:wait(TIMEOUT) return g:state() end)())
    assert.equal(7, select(2, g:pawait()).value.code)
    open_a()
    settle()
    assert.same({ 0, 1, 1, 1, 3 }, { q:status("queued"), q:status("active"),
      q:status("completed"), q:status("failed"), q:status("total") })
    assert.equal(100 / 3, q:status("failed", "percent"))
    assert.is_true(q:available())
    local first = q:status("completed", "raw")[1]
    assert.same({ 1, { 1 }, "completed", "A" },
      { first.id, first.meta, first.state, first.value })
    assert.is_true(first.started >= before and first.duration >= 0)
    assert.is_true(first.started + first.duration <= treadle.now())
    local second = q:status("failed", "raw")[1]
    assert.same({ 2, "failed", "task" }, { second.id, second.state, second.error.kind })
    open_c()
    q:drained():await()
    local states = {}
    for i, entry in ipairs(q:status("total", "raw")) do
      states[i] = entry.id .. entry.state
    end
    assert.same({ "1completed", "2failed", "3completed" }, states)
  end)

  it("knows at once that one has ended, also if another goes on in the same turn", function()
    local q, gate, open = treadle.queue { limit = 5 }, treadle.future()
    local seen = {}
    for i = 1, 5 do
      q:add(function()
        gate:await()
        seen[i] = q:status("completed")
      end)
    end
    open()
    q:drained():await()
    assert.same({ 0, 1, 2, 3, 4 }, seen)
  end)

  it("forgets what is over", function()
    local q, log = treadle.queue { limit = 1 }, {}
    q:add(function() end)
    local a, open_a = gated(log, "a")
    q:add(a)
    q:add(function() end)
    q:clear()
    assert.same({ 0, 1, 1, 2 }, { q:status("completed"), q:status("active"), q:status("queued"),
      q:status() })
    open_a()
    q:drained():await()
    q:clear()
    assert.same({ 0, {} }, { q:status(), q:status("total", "raw") })
    local times = 0
    q:all_settled(function() times = times + 1 end)
    q:add(function() end)
    q:drained():await()
    assert.equal(1, times)
  end)

  it("takes out what is cancelled", function()
    local q, log = treadle.queue { limit = 1 }, {}
    local a, open_a = gated(log, "a")
    q:add(a)
    local list = {}
    for i = 1, 5 do
      list[i] = q:add(function() log[#log + 1] = i end)
    end
    assert.is_true(list[2]:cancel("no more"))
    assert.is_true(list[4]:cancel())
    assert.is_false(list[4]:cancel())
    assert.same({ "cancelled", 3, 2 }, { list[2]:state(), q:status("queued"),
      q:status("failed") })
    local entry = q:status("failed", "raw")[1]
    assert.same({ "failed", "cancelled", "no more" },
      { entry.state, entry.error.kind, entry.error.message })
    assert.is_nil(entry.started)
    open_a()
    q:drained():await()
    assert.same({ "+a", "-a", 1, 3, 5 }, log)
  end)

  it("gives up one that is active when it is cancelled", function()
    local q, log = treadle.queue { limit = 1 }, {}
    local f = q:add(function() treadle.sleep(1000) end)
    local g = q:add(function() log[#log + 1] = "next" end)
    f:cancel("enough")
    g:await()
    assert.same({ "next" }, log)
    local entry = q:status("failed", "raw")[1]
    assert.same({ 1, "cancelled", "enough" }, { entry.id, entry.error.kind, entry.error.message })
  end)

  it("gives up one that cancels itself", function()
    local q = treadle.queue { limit = 1 }
    local hold, open_hold = gated({}, "hold")
    q:add(hold)
    local f
    f = q:add(function()
      f:cancel("myself")
      treadle.sleep(1000)
    end)
    local g = q:add(function() return "next" end)
    open_hold()
    assert.equal("next", g:await())
    assert.same({ 0, 0, 2, 1 }, { q:status("queued"), q:status("active"), q:status("completed"),
      q:status("failed") })
    assert.equal("myself", q:status("failed", "raw")[1].error.message)
  end)

  it("follows a signal", function()
    local q, abort, ran = treadle.queue { limit = 1 }, treadle.abort(), 0
    local hold, open_hold = gated({}, "hold")
    q:add(hold)
    local f = q:add(function() ran = ran + 1 end, { signal = abort.signal })
    abort:abort("stop")
    assert.equal("cancelled", f:state())
    assert.equal("cancelled", q:add(function() ran = ran + 1 end, { signal = abort }):state())
    assert.equal(2, q:status()) -- that one was never added
    open_hold()
    q:drained():await()
    assert.equal(0, ran)
  end)

  it("goes on after errors of its listeners, and says them", function()
    local out, err, code = helpers.child("treadle", [[
      local q = treadle.queue { limit = 1 }
      local n = 0
      q:race(function() error("in race") end)
      q:each(function() error({}) end)
      q:each(function() treadle.sleep(0.001) n = n + 1 end)
      q:all_settled(function() error("in all_settled") end)
      q:add(function() end)
      q:add(function() return treadle.sleep(0.01) end)
      q:drained():await()
      treadle.sleep(0.01)
      print(n)
    ]])
    assert.same({ "2\n", 0 }, { out, code })
    assert.matches("treadle: error in a listener to 'race': .-in race", err)
    assert.matches("treadle: error in a listener to 'each': ", err)
    assert.matches("treadle: error in a listener to 'all_settled': .-in all_settled", err)
  end)

  it("warns of a failure that nobody could see", function()
    local _, err = helpers.child("treadle", [[
      local q = treadle.queue()
      q:add(function() error("unseen") end)
      collectgarbage() collectgarbage()
    ]])
    assert.matches("a rejected future was dropped unseen: .-unseen", err)
    local _, quiet = helpers.child("treadle", [[
      local q = treadle.queue():all_settled(function(list) assert(list[1].error) end)
      q:add(function() error("seen") end)
      q:drained():await()
      collectgarbage() collectgarbage()
    ]])
    assert.equal("", quiet)
  end)

  it("runs 100,000 that do not wait, one after the other", function()
    local q, sum, ended = treadle.queue { limit = 1 }, 0, 0
    local hold, open_hold = gated({}, "hold")
    q:add(hold)
    for i = 1, 100000 do
      q:add(function() sum = sum + i end)
    end
    q:all_settled(function(list) ended = #list end)
    open_hold()
    q:drained():await()
    settle()
    assert.same({ 5000050000, 100001 }, { sum, ended })
  end)

  it("may be added to by what it runs", function()
    local q, log = treadle.queue { limit = 1 }, {}
    local f = q:add(function()
      q:add(function() log[#log + 1] = "inner" end)
      log[#log + 1] = "outer"
    end)
    f:await()
    q:drained():await()
    assert.same({ "outer", "inner" }, log)
  end)

  it("is drained when nothing is left, at once if nothing is there", function()
    local q = treadle.queue()
    assert.equal("resolved", q:drained():state())
    local a, open_a = gated({}, "a")
    q:add(a)
    local f = q:drained()
    assert.is_false(f:wait(0.001))
    open_a()
    assert.is_true(f:wait(TIMEOUT))
  end)

  it("takes nothing more once it is closed", function()
    local ran
    local q = treadle.using(treadle.queue { limit = 1 }, function(queue)
      queue:add(function() treadle.sleep(0.001) end)
      queue:add(function() ran = true end)
      return queue
    end)
    assert.is_true(ran)
    assert.is_false(q:available())
    assert.equal("closed", helpers.outcome(q:add(print)))
    q:close()
  end)

  it("shares threads between its functions", function()
    local w = treadle.thread("thread_tasks")
    local q = treadle.queue { limit = 3 }
    local list = {}
    for i = 1, 30 do
      list[i] = q:add(function()
        return w.call.echo(i):await()
      end)
    end
    local got = treadle.all(list):await()
    for i = 1, 30 do
      assert.equal(i, got[i])
    end
    w:close()
  end)

  it("checks what it is given", function()
    local q = treadle.queue()
    for _, case in ipairs {
      { "unknown option 'limits', did you mean 'limit'",
        function() treadle.queue { limits = 2 } end },
      { "option 'limit'", function() treadle.queue { limit = 0 } end },
      { "#1 to 'add' %(function expected, got nil", function() q:add() end },
      { "unknown option 'mata', did you mean 'meta'", function() q:add(print, { mata = 1 }) end },
      { "#1 to 'race'", function() q:race() end },
      { "#1 to 'each'", function() q:each(1) end },
      { "#1 to 'all_settled'", function() q:all_settled({}) end },
      { "unknown 'complete', did you mean 'completed'", function() q:status("complete") end },
      { "#2 to 'status' %(unknown 'per cent', did you mean 'percent'",
        function() q:status("total", "per cent") end },
      { "queue expected, got nil", function() q.add() end },
      { "queue expected, got table", function() q.status({}) end },
    } do
      assert.matches(case[1], helpers.error_here(case[2]))
    end
  end)
end)
