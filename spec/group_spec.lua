--- Groups: children that none outlives, errors, cancellation, timeouts; in the host and in tasks.
local helpers = require "helpers"
local treadle = require "treadle"

local core = require "treadle.core"

--- Call it in a main chunk and in a coroutine.
local function both(name, fn)
  it(name .. ", in a main chunk", fn)
  it(name .. ", in a coroutine", function() treadle.run(fn) end)
end

--- A group's error, which it must raise.
local function failure(fn, options)
  local ok, err = pcall(treadle.group, fn, options)
  assert.is_false(ok)
  return err
end

local function nap() treadle.sleep(1000) end

--- Wait for a long time; note why that ended, after a clean-up that takes its time.
local function nap_and_note(notes)
  local ok, err = pcall(treadle.sleep, 1000)
  assert(not ok)
  notes[#notes + 1] = err.message
end

describe("a group", function()
  local pool, done

  setup(function()
    done = helpers.watch()
    pool = treadle.pool("spawn_tasks", { threads = 2 })
  end)

  teardown(helpers.clean)

  after_each(function()
    while treadle.poll() > 0 do end
    assert.is_false(core.is_live()) -- no call, no timer
  end)

  --- A task that waits in a worker; the event says that it does, the channel what ended it.
  local function start_nap(g)
    local entered, left = treadle.event(), treadle.channel(1)
    local f = g:call(pool, "nap", entered, left)
    entered:wait()
    return left, f
  end

  describe("whose children end well", function()
    both("returns all results of its function", function()
      assert.same({ 4, 1, nil, 3, nil }, { (function(...) return select("#", ...), ... end)(
        treadle.group(function() return 1, nil, 3, nil end)) })
    end)

    both("waits for all of them", function()
      local ended = 0
      treadle.group(function(g)
        for i = 1, 10 do
          g:spawn(function()
            treadle.sleep(0.001 * (i % 3))
            ended = ended + 1
          end)
        end
      end)
      assert.equal(10, ended)
    end)

    both("gives futures of coroutines and calls", function()
      assert.same({ 3, 7, 11, 5 }, { treadle.group(function(g)
        local a = g:spawn(function(...) treadle.sleep(0) return (...) + select(2, ...) end, 1, 2)
        local b, c = g:call(pool, "add", 3, 4), g:run(pool, "add", { 5, 6 }, { timeout = 30 })
        local d = g:call(pool, function(x) return x end, 5)
        return a:await(), b:await(), c:await(), d:await()
      end) })
    end)

    both("adopts futures, also settled ones", function()
      local f, resolve = treadle.future()
      local ended = false
      treadle.group(function(g)
        assert.equal(f, g:add(f))
        g:add(treadle.resolved(1))
        g:spawn(function()
          treadle.sleep(0)
          ended = true
          resolve()
        end)
      end)
      assert.is_true(ended)
    end)

    both("takes children of its children", function()
      local notes = {}
      treadle.group(function(g)
        local function step(n)
          treadle.sleep(0)
          notes[#notes + 1] = n
          if n < 10 then
            g:spawn(step, n + 1)
          end
        end
        g:spawn(step, 1)
      end)
      assert.equal(10, #notes)
    end)

    it("takes none after its end", function()
      local group = treadle.group(function(g) return g end)
      for name, call in pairs {
        spawn = function() group:spawn(nap) end,
        call = function() group:call(pool, "add", 1, 2) end,
        run = function() group:run(pool, "add", { 1, 2 }) end,
        add = function() group:add(treadle.resolved()) end,
      } do
        assert.matches("'" .. name .. "': the group has ended", select(2, pcall(call)), 1, true)
      end
      assert.is_false(group:cancel())
    end)

    both("runs as many at a time as its limit says, in their order", function()
      local now, most, order = 0, 0, {}
      treadle.group(function(g)
        for i = 1, 50 do
          g:spawn(function()
            now = now + 1
            most = math.max(most, now)
            order[#order + 1] = i
            treadle.sleep(0)
            now = now - 1
          end)
          g:call(pool, "add", i, 1)
        end
      end, { limit = 3 })
      assert.is_true(most >= 1 and most <= 3)
      assert.equal(50, #order)
      for i = 1, 50 do
        assert.equal(i, order[i])
      end
    end)

    both("may have ten thousand", function()
      for _, limit in ipairs { math.huge, 1, 100 } do
        local sum = treadle.group(function(g)
          local list = {}
          for i = 1, 1e4 do
            list[i] = g:spawn(function()
              if i % 200 == 0 then
                treadle.sleep(0)
              end
              return 1
            end)
          end
          local n = 0
          for _, value in ipairs(treadle.all(list):await()) do
            n = n + value
          end
          return n
        end, limit < math.huge and { limit = limit } or nil)
        assert.equal(1e4, sum)
      end
    end)
  end)

  describe("in which something fails", function()
    both("cancels the others, waits for their clean-up, and raises the child's error", function()
      local notes, value = {}, {}
      local err = failure(function(g)
        g:spawn(nap_and_note, notes)
        g:spawn(function()
          local ok = pcall(treadle.sleep, 1000)
          local m = treadle.mutex()
          m:with(function() notes[#notes + 1] = tostring(ok) end)
        end)
        g:spawn(function()
          treadle.sleep(0.001)
          error(value)
        end)
      end)
      assert.same({ "another part of the group has failed", "false" }, notes)
      assert.equal("task", err.kind)
      assert.equal(value, err.value)
      assert.matches("group_spec.lua", err.traceback, 1, true)
      assert.is_nil(err.others)
    end)

    both("ends its function's wait", function()
      local inner
      local err = failure(function(g)
        g:spawn(function()
          treadle.sleep(0)
          error("oops", 0)
        end)
        inner = select(2, pcall(nap))
        inner = { inner.kind, treadle.cancelled(), (pcall(treadle.check)) }
        error(inner)
      end)
      assert.equal("oops", err.message)
      assert.same({ "cancelled", true, false }, inner)
      assert.equal(inner, err.others[1].value)
      assert.is_false(treadle.cancelled())
    end)

    both("raises the function's own error in the same way", function()
      local notes = {}
      local err = failure(function(g)
        g:spawn(nap_and_note, notes)
        error("oops", 0)
      end)
      assert.same({ "task", "oops" }, { err.kind, err.message })
      assert.matches("group_spec.lua", err.traceback, 1, true)
      assert.equal(1, #notes)
    end)

    both("tells the errors that come later, none of which warns", function()
      local err = failure(function(g)
        for _ = 1, 2 do
          g:spawn(function()
            pcall(nap)
            error("later", 0)
          end)
        end
        g:spawn(error, "first", 0)
      end)
      assert.equal("first", err.message)
      assert.same({ "later", "later" }, { err.others[1].message, err.others[2].message })
    end)

    both("raises a call's error, and lets the others end", function()
      local left, f
      local err = failure(function(g)
        left, f = start_nap(g)
        g:call(pool, "boom", "no luck")
      end)
      assert.same({ "task", "boom" }, { err.kind, err.task })
      assert.equal("another part of the group has failed", (left:try_recv()))
      assert.equal("cancelled", f:state())
    end)

    both("raises the error of a future that it was given", function()
      assert.equal("bad", failure(function(g) g:add(treadle.rejected("bad")) nap() end))
      local f, _, reject = treadle.future()
      assert.equal("worse", failure(function(g)
        g:add(f)
        g:spawn(function() treadle.sleep(0) reject("worse") end)
        nap()
      end))
    end)

    both("does not start what waits for its turn", function()
      local started = 0
      local err = failure(function(g)
        g:spawn(function() treadle.sleep(0) error("oops", 0) end)
        for _ = 1, 1e4 do
          g:spawn(function() started = started + 1 end)
        end
      end, { limit = 1 })
      assert.equal("oops", err.message)
      assert.equal(0, started)
    end)

    both("is an error of the child that holds it", function()
      local notes = {}
      local err = failure(function(g)
        g:spawn(nap_and_note, notes)
        g:spawn(function()
          treadle.group(function(inner)
            inner:spawn(nap_and_note, notes)
            inner:spawn(function() treadle.sleep(0) error("deep", 0) end)
          end)
        end)
      end)
      assert.equal("deep", err.message)
      assert.equal(2, #notes)
    end)

    both("leaves a handled error of an inner group to who has handled it", function()
      assert.equal("deep", treadle.group(function(g)
        return g:spawn(function()
          local _, err = pcall(treadle.group, function(inner)
            inner:spawn(error, "deep", 0)
            nap()
          end)
          treadle.sleep(0) -- nothing of it is cancelled any more
          return err.message
        end):await()
      end))
    end)

    it("owes no warning for what it has raised", function()
      local out, err, code = helpers.child("treadle", [[
        local ok, err = pcall(treadle.group, function(g)
          g:spawn(error, "first", 0)
          g:add(treadle.rejected("given"))
          g:spawn(function() pcall(treadle.sleep, 100) error("later", 0) end)
        end)
        print(err.message, #err.others)
        collectgarbage() collectgarbage()
      ]])
      assert.same({ "first\t2\n", "", 0 }, { out, err, code })
    end)
  end)

  describe("that is cancelled", function()
    both("by its function returns its results", function()
      local notes = {}
      assert.equal(5, treadle.group(function(g)
        g:spawn(nap_and_note, notes)
        assert.is_true(g:cancel("enough"))
        assert.is_false(g:cancel())
        return 5
      end))
      assert.same({ "enough" }, notes)
    end)

    both("by a child raises that, if its function waits", function()
      local notes = {}
      local err = failure(function(g)
        g:spawn(nap_and_note, notes)
        g:spawn(function() treadle.sleep(0) g:cancel("enough") treadle.sleep(0) end)
        nap()
      end)
      assert.same({ "cancelled", "enough" }, { err.kind, err.message })
      assert.same({ "enough" }, notes)
    end)

    both("takes along what its function has spawned beside it", function()
      local notes = {}
      treadle.group(function(g)
        treadle.spawn(nap_and_note, notes)
        g:cancel("enough")
      end)
      while treadle.poll() > 0 do end
      assert.same({ "enough" }, notes)
    end)

    both("from around cancels its children and waits for them", function()
      for _, in_function in ipairs { true, false } do
        local notes, err = {}, nil
        local f = treadle.spawn(function()
          err = failure(function(g)
            g:spawn(nap_and_note, notes)
            g:spawn(function()
              treadle.group(function(inner) inner:spawn(nap_and_note, notes) end)
            end)
            if in_function then
              nap()
            end
          end)
          notes[#notes + 1] = tostring(treadle.cancelled())
        end)
        f:cancel("enough")
        helpers.poll_until(function() return #notes == 3 end)
        assert.same({ "enough", "enough", "true" }, notes)
        assert.same({ "cancelled", "enough" }, { err.kind, err.message })
      end
    end)

    both("from around, waits for a job to end", function()
      local entered, gate, left = treadle.event(), treadle.event(), treadle.channel(1)
      local has_ended = false
      local f = treadle.spawn(function()
        pcall(treadle.group, function(g) g:call(pool, "compute", entered, gate, left) end)
        has_ended = true
      end)
      entered:wait()
      f:cancel("enough")
      pool.call.add(1, 2):await()
      while treadle.poll() > 0 do end
      assert.is_false(has_ended)
      gate:set()
      helpers.poll_until(function() return has_ended end)
      assert.equal("computed", (left:try_recv()))
    end)

    both("by a signal raises its reason", function()
      local a, notes = treadle.abort(), {}
      treadle.spawn(function() treadle.sleep(0.001) a:abort("late") end)
      local err = failure(function(g) g:spawn(nap_and_note, notes) end, { signal = a })
      assert.same({ "cancelled", "late" }, { err.kind, err.message })
      assert.same({ "late" }, notes)
      local ran = false
      err = failure(function() ran = true end, { signal = a.signal })
      assert.same({ "late", false }, { err.message, ran })
    end)

    both("aborts its own signal", function()
      local told
      treadle.group(function(g)
        local f = g.signal:bind((treadle.future()))
        g:cancel("enough")
        told = { f:state(), g.signal.reason }
      end)
      assert.same({ "cancelled", "enough" }, told)
    end)

    both("waits for a child that was cancelled alone", function()
      local notes = {}
      treadle.group(function(g)
        local f = g:spawn(function()
          nap_and_note(notes)
          notes[#notes + 1] = "ended"
        end)
        local left, call = start_nap(g)
        f:cancel("alone")
        call:cancel("too")
        assert.equal("too", (left:recv()))
      end)
      assert.same({ "alone", "ended" }, notes)
    end)

    both("waits for a future that several groups have", function()
      local left, has_left = nil, false
      local call
      treadle.group(function(outer)
        treadle.group(function(g)
          left, call = start_nap(g)
          outer:add(call)
          call:cancel("alone")
        end)
        has_left = left:try_recv() == "alone"
      end)
      assert.is_true(has_left)
    end)

    both("raises an error of the clean-up", function()
      local err = failure(function(g)
        local f = g:spawn(function() pcall(nap) error("oops", 0) end)
        f:cancel()
      end)
      assert.equal("oops", err.message)
    end)

    both("in the turn in which a child ends", function()
      for _, first in ipairs { true, false } do
        local gate, open = treadle.future()
        local ended = 0
        treadle.group(function(g)
          for _ = 1, 3 do
            g:spawn(function()
              pcall(gate.await, gate)
              ended = ended + 1
            end)
          end
          if first then open() end
          g:cancel("enough")
          if not first then open() end
        end)
        assert.equal(3, ended)
      end
    end)
  end)

  describe("with a timeout", function()
    both("raises kind 'timeout' when its children have ended", function()
      local notes = {}
      local err = failure(function(g)
        g:spawn(nap_and_note, notes)
        g:spawn(nap_and_note, notes)
      end, { timeout = 0.01 })
      assert.same({ "timeout", "the group has not ended within 0.01 s" }, { err.kind, err.message })
      assert.same({ "the time for the group is over", "the time for the group is over" }, notes)
      err = failure(nap, { timeout = 0.01 })
      assert.equal("timeout", err.kind)
    end)

    both("stops calls that compute without an end #computing", function()
      local f, g2
      local err = failure(function(g)
        f, g2 = g:call(pool, "endless"), g:call(pool, "endless")
      end, { timeout = 0.01 })
      assert.equal("timeout", err.kind)
      assert.same({ "cancelled", "cancelled" }, { f:state(), g2:state() })
      assert.equal(3, pool.call.add(1, 2):await())
    end)

    both("stops such calls of its coroutines, and those in its queue #computing", function()
      local err = failure(function(g)
        g:spawn(function() pool.call.endless():await() end)
        g:call(pool, "endless")
      end, { timeout = 0.01 })
      assert.equal("timeout", err.kind)
      err = failure(function(g)
        g:spawn(treadle.sleep, 0.001)
        g:call(pool, "endless")
        g:call(pool, "endless")
      end, { timeout = 0.05, limit = 1 })
      assert.equal("timeout", err.kind)
      assert.equal(3, pool.call.add(1, 2):await())
    end)

    both("and one that ends in time leaves no timer", function()
      treadle.group(function() end, { timeout = 1000 })
    end)
  end)

  it("with force stops calls that compute without an end #computing", function()
    local entered = treadle.event()
    local err = failure(function(g)
      g:call(pool, "endless")
      g:call(pool, function(e) e:set() while true do end end, entered)
      entered:wait()
      error("oops", 0)
    end, { force = true })
    assert.equal("oops", err.message)
    treadle.group(function(g)
      g:call(pool, "endless")
      g:cancel { force = true }
    end)
    assert.equal(3, pool.call.add(1, 2):await())
  end)

  describe("in a task", function()
    it("may be of calls on its own pool, with one worker", function()
      local small = treadle.pool("spawn_tasks", { threads = 1 })
      assert.equal(5050, small.call.group_of_calls(100):await())
      small:close()
    end)

    it("ends when a call fails", function()
      local entered, left = treadle.event(), treadle.channel(1)
      local ok, err = pool.call.group_that_fails(entered, left):pawait()
      assert.is_false(ok)
      assert.matches("no luck", err.message)
      assert.equal("another part of the group has failed", (left:try_recv()))
    end)

    it("ends with its job, children first", function()
      local entered, left = treadle.event(), treadle.channel(2)
      local f = pool.call.group_that_waits(entered, left)
      entered:wait()
      f:cancel("enough")
      assert.equal("enough", (left:recv()))
      assert.equal("group cancelled: enough", (left:recv()))
    end)
  end)

  it("says what is wrong, at the caller's line", function()
    assert.equal("bad argument #1 to 'group' (function expected, got nil)",
      helpers.error_here(function() treadle.group() end))
    assert.equal("bad argument #2 to 'group' (unknown option 'timeuot', did you mean 'timeout'?)",
      helpers.error_here(function() treadle.group(print, { timeuot = 1 }) end))
    local group = treadle.group(function(g)
      for _, case in ipairs {
        { "bad argument #1 to 'spawn' (function expected, got number)",
          function() g:spawn(1) end },
        { "bad argument #1 to 'call' (pool or thread expected, got string)",
          function() g:call("add", 1, 2) end },
        { "bad argument #2 to 'call' (string or function expected, got nil)",
          function() g:call(pool) end },
        { "bad argument #1 to 'add' (future expected, got number)",
          function() g:add(1) end },
        { "bad argument #1 to 'cancel' (unknown option 'reson', did you mean 'reason'?)",
          function() g:cancel { reson = 1 } end },
        { "bad argument #1 to 'spawn' (group expected, got function): call it with a colon",
          function() g.spawn(print) end },
      } do
        assert.equal(case[1], helpers.error_here(case[2]))
      end
      return g
    end)
    assert.equal("'spawn': the group has ended: it takes no more children",
      helpers.error_here(function() group:spawn(print) end))
  end)

  it("leaves no thread and no descriptor", function()
    pool:close(helpers.TIMEOUT)
    done()
  end)
end)
