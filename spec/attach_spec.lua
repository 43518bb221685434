--- Joining a loop that somebody else runs, by an adapter for a small host of the specs' own.
local attach_host = require "attach_host"
local helpers = require "helpers"
local treadle = require "treadle"

local core = require "treadle.core"
local loop = require "treadle.loop"

local NO_PLACE = "spec: cannot wait here; do it in a coroutine (treadle.spawn)"

describe("attach", function()
  local done, pool, host, attachment

  setup(function()
    treadle.fd()
    done = helpers.watch()
    pool = treadle.pool("tasks", { threads = 2, concurrency = 100 })
  end)

  before_each(function()
    host = attach_host.new()
  end)

  after_each(function()
    if attachment then
      attachment:detach()
      attachment = nil
    end
  end)

  teardown(function()
    pool:close()
    done()
    helpers.clean()
  end)

  local function attach(...)
    for _, name in ipairs { ... } do
      host.adapter[name] = nil
    end
    attachment = treadle.attach(host.adapter)
    return attachment
  end

  --- The same: the function that the host is to call.
  local function attach_for_turn()
    local turn
    local watch = host.adapter.watch
    function host.adapter.watch(fd, fn)
      turn = fn
      return watch(fd, fn)
    end
    attach()
    return turn
  end

  --- Run `fn` where it says, and the host until it has ended: its results.
  local function in_main(fn)
    return fn()
  end

  local function in_coroutine(fn)
    local f = treadle.spawn(fn)
    host.run(function() return f:state() ~= "pending" end)
    return f:await()
  end

  local function pack(ok, ...)
    return { ok = ok, n = select("#", ...), ... }
  end

  local function results_of(packed)
    if not packed.ok then
      error(packed[1], 0)
    end
    return unpack(packed, 1, packed.n)
  end

  local function in_thread(fn)
    local packed
    host.spawn(function() packed = pack(pcall(fn)) end)
    host.run(function() return packed end)
    return results_of(packed)
  end

  local function in_callback(fn)
    local packed, has_begun
    local off = pool:on("job_done", function()
      if not has_begun then
        has_begun = true
        packed = pack(pcall(fn))
      end
    end)
    pool.call.add(1, 1)
    host.run(function() return packed end)
    off()
    return results_of(packed)
  end

  local places = {
    ["main code"] = in_main,
    ["a coroutine"] = in_coroutine,
    ["a thread of the host's"] = in_thread,
    ["a callback that a turn runs"] = in_callback,
  }

  for place, run in pairs(places) do
    describe("in " .. place, function()
      before_each(function() attach() end)

      it("calls are awaited while the host's loop goes on", function()
        local ticks, stops = 0, false
        host.spawn(function()
          while not stops do
            ticks = ticks + 1
            host.sleep(0.001)
          end
        end)
        local gate = helpers.new_path()
        host.spawn(function()
          while ticks < 5 do
            host.sleep(0.001)
          end
          helpers.write(gate, "")
        end)
        -- the task ends when the host's threads have run
        assert.equal("held", run(function() return (pool.call.hold(gate, "held"):await()) end))
        assert.is_true(ticks >= 5)
        stops = true
        host.run()
      end)

      it("errors of calls are raised, and values of any shape come", function()
        local err = run(function() return select(2, pool.call.boom("crack"):pawait()) end)
        assert.matches("crack", tostring(err))
        assert.same({ { 1, { 2 } }, "b", nil, 4 }, { run(function()
          return pool.call.echo({ 1, { 2 } }, "b", nil, 4):await()
        end) })
      end)

      it("sleeps last as long as they say", function()
        local start = treadle.now()
        run(function() treadle.sleep(0.02) end)
        assert.is_true(treadle.now() - start >= 0.02)
      end)

      it("a time limit ends the wait and nothing else", function()
        local f, resolve = treadle.future()
        assert.is_false(run(function() return f:wait(0.005) end))
        assert.is_false(run(function() return f:wait(0) end))
        resolve(3)
        assert.is_true(run(function() return f:wait(0.005) end))
        assert.equal(3, run(function() return (f:await()) end))
      end)

      it("who cancels what is awaited ends the wait", function()
        local f = treadle.future()
        treadle.spawn(function()
          treadle.sleep(0.002)
          f:cancel("enough")
        end)
        local ok, err = run(function() return f:pawait() end)
        assert.is_false(ok)
        assert.equal("cancelled", err.kind)
        assert.matches("enough", err.message)
      end)

      it("treadle.run returns the results", function()
        assert.equal(7, run(function()
          return treadle.run(function() return (pool.call.add(3, 4):await()) end)
        end))
      end)

      it("a group ends its code's wait when a child fails", function()
        local ok, err = run(function()
          return pcall(treadle.group, function(g)
            g:spawn(function()
              treadle.sleep(0.002)
              error("child", 0)
            end)
            treadle.sleep(math.huge)
          end)
        end)
        assert.is_false(ok)
        assert.matches("child", tostring(err))
      end)

      it("a group waits for its children", function()
        assert.equal(3, run(function()
          local sum = 0
          treadle.group(function(g)
            for i = 1, 2 do
              g:spawn(function()
                treadle.sleep(0.001)
                sum = sum + i
              end)
            end
          end)
          return sum
        end))
      end)

      it("channels, locks, events and buffers are waited for", function()
        local ch, event = treadle.channel(0), treadle.event()
        local mutex, semaphore = treadle.mutex(), treadle.semaphore(1)
        local numbers = treadle.buffer("int32_t", 1)
        local has_tried, tell = treadle.future()
        treadle.spawn(function()
          mutex:lock()
          semaphore:acquire()
          treadle.sleep(0.002)
          ch:send("sent")
          has_tried:await()
          treadle.sleep(0.002)
          semaphore:release()
          treadle.sleep(0.002)
          mutex:unlock()
          treadle.sleep(0.002)
          event:set()
          treadle.sleep(0.002)
          treadle.atomics.store(numbers, 0, 1)
          treadle.atomics.notify(numbers, 0)
        end)
        assert.same({ "sent", false, true, true, true, "ok" }, run(function()
          local found = { ch:recv(), (mutex:lock(0.0001)) }
          tell()
          semaphore:acquire()
          semaphore:release()
          found[3] = (mutex:lock())
          mutex:unlock()
          found[4] = event:wait()
          found[5] = treadle.atomics.wait(numbers, 0, 0) ~= nil
          found[6] = "ok"
          return found
        end))
      end)

      it("a full queue is waited for", function()
        local narrow = treadle.pool("tasks", { threads = 1, max_queue = 1, on_full = "wait" })
        assert.equal(10, run(function()
          local list = {}
          for i = 1, 10 do
            list[i] = narrow.call.echo(i)
          end
          return #treadle.all(list):await()
        end))
        run(function() narrow:close() end)
      end)

      it("pools are opened and closed", function()
        assert.equal(5, run(function()
          local own = treadle.pool("tasks", { threads = 1 })
          local f = own.call.add(2, 3)
          own:close()
          return (f:await())
        end))
      end)
    end)
  end

  it("is told what is ready between two turns", function()
    attach()
    local f, resolve = treadle.future()
    local got
    treadle.spawn(function() got = f:await() end)
    host.run(function() return host.turns > 0 end)
    host.spawn(function() resolve "between" end)
    host.run(function() return got end)
    assert.equal("between", got)
  end)

  it("misses no result when results are looked for between two turns", function()
    attach()
    for i = 1, 200 do
      local first, second = pool.call.add(i, 0), pool.call.add(0, i)
      core.timer(0) -- is due: to poll takes the ring off the descriptor
      while first:state() == "pending" do end
      local seen
      second:and_then(function(n) seen = n end)
      host.run(function() return seen end)
      assert.equal(i, seen)
    end
  end)

  it("two threads of the host's exclude each other by a lock", function()
    attach()
    local mutex, log = treadle.mutex(), {}
    for i = 1, 2 do
      host.spawn(function()
        mutex:lock()
        log[#log + 1] = "in" .. i
        host.sleep(0.003)
        log[#log + 1] = "out" .. i
        mutex:unlock()
      end)
    end
    host.run()
    assert.same({ "in1", "out1", "in2", "out2" }, log)
  end)

  it("threads are apart though a coroutine runs the host's loop", function()
    attach()
    local ends, mutex, log = {}, treadle.mutex(), {}
    treadle.spawn(function()
      for i = 1, 2 do
        host.spawn(function()
          ends[i] = select(2, pcall(treadle.group, function(g)
            g:spawn(function()
              treadle.sleep(0.002 * i)
              error("child " .. i, 0)
            end)
            treadle.sleep(math.huge)
          end))
          mutex:with(function()
            log[#log + 1] = "in"
            host.sleep(0.002)
            log[#log + 1] = "out"
          end)
        end)
      end
      host.run()
    end)
    assert.matches("child 1", tostring(ends[1]))
    assert.matches("child 2", tostring(ends[2]))
    assert.same({ "in", "out", "in", "out" }, log)
  end)

  it("what a thread of the host's holds is free when it is collected", function()
    attach()
    local mutex = treadle.mutex()
    host.spawn(function() mutex:lock() end)
    host.run()
    local told
    host.spawn(function()
      collectgarbage()
      collectgarbage()
      told = select(2, mutex:lock())
      mutex:unlock()
    end)
    host.run()
    assert.equal("abandoned", told)
  end)

  it("a coroutine that the script made is resumed by treadle", function()
    attach()
    local sum
    host.spawn(function()
      coroutine.wrap(function() sum = pool.call.add(20, 1):await() end)()
      host.sleep(0.001)
    end)
    host.run(function() return sum end)
    assert.equal(21, sum)
  end)

  it("waits of 1000 threads at once end, each with its own result", function()
    attach()
    local wrong, ended = 0, 0
    for i = 1, 1000 do
      host.spawn(function()
        local sum = pool.call.add(i, i):await()
        wrong = wrong + (sum == 2 * i and 0 or 1)
        ended = ended + 1
      end)
    end
    host.run()
    assert.same({ 0, 1000 }, { wrong, ended })
  end)

  -- --- places that cannot wait -------------------------------------------------------------------

  describe("without 'block'", function()
    before_each(function() attach "block" end)

    for name, fn in pairs {
      ["await"] = function() pool.call.add(1, 2):await() end,
      ["pawait"] = function() pool.call.add(1, 2):pawait() end,
      ["wait"] = function() treadle.future():wait(1) end,
      ["sleep"] = function() treadle.sleep(0) end,
      ["run"] = function() treadle.run(treadle.sleep, 0.001) end,
      ["recv"] = function() treadle.channel():recv() end,
      ["group"] = function() treadle.group(function(g) g:call(pool, "add", 1, 2) end) end,
      ["pool"] = function() treadle.pool("tasks", { threads = 1 }) end,
    } do
      it("main code's " .. name .. " is an error that says so", function()
        local ok, err = pcall(fn)
        assert.is_false(ok)
        assert.matches(NO_PLACE, tostring(err), 1, true)
      end)
    end

    it("to close a pool is one, too, and it closes all the same", function()
      attachment:detach()
      local own = treadle.pool("tasks", { threads = 1 })
      attach "block"
      local ok, err = pcall(own.close, own)
      assert.is_false(ok)
      assert.matches(NO_PLACE, tostring(err), 1, true)
      assert.equal("closed", select(2, in_coroutine(function()
        return own.call.add(1, 2):pawait()
      end)).kind)
    end)

    it("what needs no wait works", function()
      local f, resolve = treadle.future()
      assert.is_false(f:wait(0))
      resolve(1)
      assert.equal(1, f:await())
      assert.equal(3, in_coroutine(function() return (pool.call.add(1, 2):await()) end))
    end)

    it("coroutines wait there", function()
      local ok, err = in_callback(function() return pcall(treadle.sleep, 0.001) end)
      assert.is_false(ok)
      assert.matches(NO_PLACE, err, 1, true)
    end)
  end)

  describe("where the host forbids to wait", function()
    before_each(function() attach() end)

    it("its error is raised, and nothing is left behind", function()
      local narrow = treadle.pool("tasks", { threads = 1, max_queue = 1, on_full = "wait" })
      local gate, problems = helpers.new_path(), {}
      host.spawn(function()
        local held = { narrow.call.hold(gate, 1), narrow.call.echo(2) }
        host.forbids = "spec: cannot wait in log"
        for i, fn in ipairs {
          function() held[1]:await() end,
          function() narrow.call.echo(3) end, -- on_full: it would wait in line
          function() treadle.sleep(1) end,
        } do
          problems[i] = select(2, pcall(fn))
        end
        host.forbids = nil
        helpers.write(gate, "")
        problems[4] = held[2]:await()
        problems[5] = narrow.call.echo(5):await() -- nobody stands in line
      end)
      host.run()
      assert.same({ "spec: cannot wait in log", "spec: cannot wait in log",
        "spec: cannot wait in log", 2, 5 }, problems)
      narrow:close()
    end)
  end)

  -- --- the adapter's functions -------------------------------------------------------------------

  it("an earlier timer is told to 'rearm', a later one is not", function()
    attach()
    host.run(function() return host.turns > 0 end)
    local timers = {}
    finally(function()
      for _, timer in ipairs(timers) do
        core.timer_stop(timer)
      end
    end)
    timers[1], timers[2] = core.timer(9000), core.timer(1000)
    assert.equal(2, #host.rearmed)
    assert.is_true(host.rearmed[1] > 1001 and host.rearmed[2] < 1001)
    timers[3] = core.timer(1000.001)
    assert.equal(2, #host.rearmed)
  end)

  it("without 'rearm' the descriptor says it", function()
    attach "rearm"
    host.run(function() return host.turns > 0 end)
    local slept
    host.spawn(function()
      host.sleep(0.001)
      treadle.spawn(function()
        treadle.sleep(0.002)
        slept = true
      end)
    end)
    host.run(function() return slept end)
    assert.is_true(slept)
  end)

  it("'hold' is told when treadle has something to do, and when it has no more", function()
    attach()
    host.run(function() return host.turns > 0 end)
    assert.same({ false }, host.held)
    local f = pool.call.add(1, 2)
    assert.same({ false, true }, host.held)
    pool.call.add(1, 2)
    assert.same({ false, true }, host.held)
    host.run(function() return #host.held == 3 end)
    assert.same({ false, true, false }, host.held)
    assert.equal(3, f:await())
    local timer = core.timer(50)
    assert.is_true(host.held[#host.held])
    core.timer_stop(timer)
    in_coroutine(function() treadle.sleep(0) end)
    host.run(function() return not host.held[#host.held] end)
  end)

  it("a host of which it is said that all is done may sleep", function()
    attach()
    pool.call.sleep(0.02)
    local passes
    host.run(function()
      passes = host.passes
      return host.held[#host.held] == false and host.turns > 1
    end)
    assert.is_true(passes < 20, passes .. " passes for one result")
  end)

  it("errors of what a turn runs are told to 'report', and the others run", function()
    attach()
    local ran = 0
    for i = 1, 3 do
      loop.defer(function()
        ran = ran + 1
        error("deferred " .. i)
      end)
    end
    host.run(function() return ran == 3 end)
    assert.equal(3, #host.reports)
    for i = 1, 3 do
      assert.matches("attach_spec.lua:%d+: deferred " .. i, host.reports[i])
      assert.matches("stack traceback", host.reports[i])
    end
    assert.equal(3, pool.call.add(1, 2):await())
  end)

  --- The next turn's look at what has arrived fails.
  local function fail_to_gather(message)
    local gather = loop.gather
    function loop.gather()
      loop.gather = gather
      error(message, 0)
    end
  end

  it("an error while what has arrived is taken is told, and it is taken the next time", function()
    attach()
    local sum
    pool.call.add(1, 2):and_then(function(value) sum = value end)
    fail_to_gather "not enough memory"
    host.run(function() return sum end)
    assert.equal(3, sum)
    assert.equal(1, #host.reports)
    assert.matches("^not enough memory", host.reports[1])
  end)

  it("Ctrl-C meanwhile ends the host's turn, as it does in what that runs", function()
    local function interrupt()
      error("interrupted", 0)
    end
    attach()
    fail_to_gather "interrupted"
    assert.same({ false, "interrupted" }, { pcall(host.step) })
    loop.defer(interrupt)
    assert.same({ false, "interrupted" }, { pcall(host.step) })
    assert.same({}, host.reports)
    assert.equal(3, pool.call.add(1, 2):await())
    local never = treadle.future()
    host.spawn(function()
      fail_to_gather "interrupted"
      core.leave(true) -- so there is a turn
    end)
    assert.same({ false, "interrupted" }, { pcall(never.await, never) })
    assert.equal(3, pool.call.add(1, 2):await())
  end)

  it("without 'report', or when it fails itself, they go to standard error", function()
    local out, err, code = helpers.child("luajit", [[
      local treadle, loop = require "treadle", require "treadle.loop"
      local host = require("attach_host").new()
      host.adapter.report = nil
      treadle.attach(host.adapter)
      local has_run
      loop.defer(function() error "lost and found" end)
      loop.defer(function() has_run = true print "the other" end)
      host.run(function() return has_run end)
    ]])
    assert.same({ "the other\n", 0 }, { out, code })
    assert.matches("^treadle: .*lost and found\nstack traceback", err)
    out, err = helpers.child("luajit", [[
      local treadle, loop = require "treadle", require "treadle.loop"
      local host = require("attach_host").new()
      host.adapter.report = function() error "in report" end
      treadle.attach(host.adapter)
      local has_run
      loop.defer(function() error "lost and found" end)
      loop.defer(function() has_run = true end)
      host.run(function() return has_run end)
    ]])
    assert.equal("", out)
    assert.matches("^treadle: .*lost and found", err)
  end)

  it("an error that 'park' raises is raised by the wait, which is over then", function()
    attach()
    host.adapter.parker = function()
      return { park = function() error("killed", 0) end, wake = function() end }
    end
    local f, resolve = treadle.future()
    local problem = in_thread(function() return select(2, pcall(f.await, f)) end)
    assert.equal("killed", problem)
    resolve(1) -- nobody is woken
    treadle.sleep(0)
    assert.same({}, host.reports)
  end)

  it("a sleep that the host's error ends leaves no timer", function()
    attach()
    local function fail() error("park", 0) end
    host.adapter.parker = function() return { park = fail, wake = fail } end
    assert.same({ false, "park" }, { in_thread(function() return pcall(treadle.sleep, 60) end) })
    host.adapter.block = function(_, seconds)
      if seconds > 0 then -- it may wait, but is interrupted
        error("block", 0)
      end
    end
    assert.same({ false, "block" }, { pcall(treadle.sleep, 60) })
    treadle.poll()
    assert.equal(math.huge, treadle.next_timeout())
  end)

  it("a thread that is woken for nothing waits on", function()
    attach()
    local woken, got = 0, nil
    local co
    host.adapter.parker = function()
      return {
        park = function(seconds)
          host.sleep(seconds)
          woken = woken + 1
        end,
        wake = function() host.wake(co) end,
      }
    end
    local f, resolve = treadle.future()
    co = host.spawn(function() got = f:await() end)
    host.spawn(function()
      for _ = 1, 3 do
        host.wake(co)
        host.sleep(0.001)
      end
      resolve "at last"
    end)
    host.run()
    assert.equal("at last", got)
    assert.is_true(woken >= 3)
  end)

  it("a turn may be run within a turn", function()
    local turn = attach_for_turn()
    local order = {}
    loop.defer(function()
      order[#order + 1] = "outer"
      loop.defer(function() order[#order + 1] = "inner" end)
      turn()
      order[#order + 1] = "outer goes on"
    end)
    host.run(function() return #order == 3 end)
    assert.same({ "outer", "inner", "outer goes on" }, order)
    assert.equal(3, pool.call.add(1, 2):await())
  end)

  it("the host's loop may be run within a turn, and what it wakes runs", function()
    attach()
    local f, resolve = treadle.future()
    local got, after
    treadle.spawn(function() got = f:await() end)
    loop.defer(function()
      resolve "nested"
      host.run(function() return got end)
      after = got
    end)
    host.run(function() return after end)
    assert.equal("nested", after)
  end)

  it("a turn runs for no longer than the adapter's 'budget', but for one thing", function()
    host.adapter.budget = 0
    attach()
    local ran = {}
    for i = 1, 3 do
      loop.defer(function() ran[i] = host.turns end)
    end
    host.run(function() return ran[3] end)
    assert.same({ ran[1], ran[1] + 1, ran[1] + 2 }, ran)
  end)

  -- --- attaching and detaching -------------------------------------------------------------------

  it("detached, the state waits by itself, and can be attached again", function()
    for _ = 1, 50 do
      attach()
      local f, resolve = treadle.future()
      host.spawn(resolve) -- which only the host's loop runs
      f:await()
      assert.is_true(host.turns > 0)
      attachment:detach()
      attachment:detach()
      local turns = host.turns
      assert.equal(3, pool.call.add(1, 2):await())
      treadle.sleep(0.0001)
      assert.equal(turns, host.turns)
      host = attach_host.new()
    end
  end)

  it("what waited when it was detached goes on", function()
    attach()
    local f = treadle.spawn(function()
      treadle.sleep(0.005)
      return (pool.call.add(1, 2):await())
    end)
    host.run(function() return host.turns > 0 end)
    attachment:detach()
    assert.equal(3, f:await())
  end)

  it("may be detached in a turn", function()
    attach()
    loop.defer(function() attachment:detach() end)
    local other = false
    loop.defer(function() other = true end)
    host.run(function() return other end)
    assert.equal(3, pool.call.add(1, 2):await())
  end)

  it("may be detached and attached again in a turn: a timer is told as before", function()
    attach "rearm"
    local is_back
    loop.defer(function()
      attachment:detach()
      attach()
      is_back = true
    end)
    host.run(function() return is_back end)
    local turns
    repeat -- until there is nothing to do
      turns = host.turns
      host.step(0)
    until host.turns == turns
    local timer = core.timer(50)
    host.step(0)
    assert.equal(turns + 1, host.turns)
    core.timer_stop(timer)
  end)

  it("may be detached and attached again by the host while main code waits", function()
    attach()
    host.spawn(function()
      attachment:detach()
      attach()
    end)
    treadle.sleep(0.001)
    assert.equal(3, pool.call.add(1, 2):await())
    host.run(function() return host.held[#host.held] == false end)
    assert.equal(3, in_thread(function() return pool.call.add(1, 2):await() end))
  end)

  it("a turn that is called too late does nothing", function()
    local turn = attach_for_turn()
    attachment:detach()
    local ran = false
    loop.defer(function() ran = true end)
    assert.equal(math.huge, turn())
    assert.is_false(ran)
    treadle.poll()
    assert.is_true(ran)
  end)

  it("refuses a second one, and says which there is", function()
    attach()
    local ok, err = pcall(function()
      treadle.attach(attach_host.new().adapter)
    end)
    assert.is_false(ok)
    assert.matches("attach_spec.lua:%d+: treadle.attach: attached to spec already", err)
    assert.equal("treadle.attachment: spec", tostring(attachment))
  end)

  it("says what is wrong with an adapter", function()
    for expected, given in pairs {
      ["an adapter, a host or its name expected, got number"] = 7,
      ["the adapter has no function 'watch'"] = {},
      ["field 'park' of the adapter: there is no such one, did you mean 'parker'?"] =
        { watch = print, park = print },
      ["field 'block' of the adapter: function expected, got boolean"] =
        { watch = print, block = true },
      ["no adapter 'copa' comes with treadle, did you mean 'copas'?"] = "copa",
    } do
      local ok, err = pcall(function() treadle.attach(given) end)
      assert.is_false(ok)
      assert.matches("attach_spec.lua:%d+: bad argument #1 to 'attach' %(", err)
      assert.matches(expected, err, 1, true)
    end
    local ok, err = pcall(treadle.attach, { name = "odd", watch = function() end })
    assert.is_false(ok)
    assert.matches("treadle.attach: 'watch' of odd returned no function", err, 1, true)
    ok, err = pcall(treadle.attach, { watch = function() error "no epoll" end })
    assert.is_false(ok)
    assert.matches("no epoll", err)
    assert.equal(3, pool.call.add(1, 2):await())
  end)

  it("finds the host by itself, or says that there is none", function()
    local out, err, code = helpers.child("luajit", [[
      local treadle = require "treadle"
      print(select(2, pcall(treadle.attach)))
      require "luv"
      print(treadle.attach())
    ]])
    assert.same({ "", 0 }, { err, code })
    assert.matches("no host found: give it the name of one, or an adapter\n"
      .. "treadle.attachment: luv\n$", out)
  end)

  it("a worker refuses it: its loop is its pool's", function()
    local ok, err = pool:run(function()
      require("treadle").attach { watch = function() return function() end end }
    end):pawait()
    assert.is_false(ok)
    assert.matches("treadle.attach: a worker's loop is its pool's", tostring(err))
  end)

  it("is misused with a dot", function()
    attach()
    assert.has_error(function() attachment.detach() end)
    assert.equal(3, pool.call.add(1, 2):await())
  end)

  it("a thread that its host drops while it waits is collected", function()
    attach()
    host.adapter.parker = function(co)
      return { park = coroutine.yield, wake = function() coroutine.resume(co) end }
    end
    local dropped = setmetatable({}, { __mode = "k" })
    for _ = 1, 20 do
      local co = coroutine.create(function() treadle.future():await() end)
      dropped[co] = true
      assert(coroutine.resume(co))
    end
    host.adapter.parker = nil
    require("jit").flush()
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(dropped))
  end)

  it("leaves no waiter behind: 10000 waits in threads of the host's", function()
    attach("hold", "rearm") -- which the host would keep a record of
    local f, resolve = treadle.future()
    local function waits(n)
      for _ = 1, n do
        in_thread(function() f:wait(1e-6) end)
      end
      collectgarbage()
      collectgarbage()
      return collectgarbage "count"
    end
    local before, descriptors = waits(1000), helpers.descriptors()
    assert.is_true(waits(10000) < before + 100)
    assert.equal(descriptors, helpers.descriptors())
    assert.is_nil(f[core.WAITER] or nil)
    resolve()
  end)
end)
