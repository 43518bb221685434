--- treadle.thread: one worker that keeps its state, and messages both ways; treadle.parent.
local helpers = require "helpers"
local treadle = require "treadle"

local TIMEOUT = helpers.TIMEOUT

describe("a thread", function()
  local done, made

  setup(function()
    done = helpers.watch()
  end)

  before_each(function()
    made = {}
  end)

  after_each(function()
    for _, w in ipairs(made) do
      w:terminate()
      w:close(TIMEOUT)
    end
    made = nil
  end)

  teardown(function()
    done()
    helpers.clean()
  end)

  --- A thread whose events are noted.
  local function open(given, module)
    local w = treadle.thread(module or "thread_tasks", given)
    local log = { exits = 0, errors = {} }
    w:on("exit", function(event)
      log.exit, log.exits = event, log.exits + 1
    end)
    w:on("error", function(err)
      assert.is_nil(log.exit)
      log.errors[#log.errors + 1] = err
    end)
    made[#made + 1] = w
    return w, log
  end

  local function ended(log)
    helpers.poll_until(function() return log.exit end, "the thread's exit")
    assert.equal(1, log.exits)
    return log.exit.reason
  end

  --- Send whatever is in a list to `w`; or collect what comes from it.
  local function collect(w)
    local got = {}
    local stop = w:on("message", function(value) got[#got + 1] = value end)
    return got, stop
  end

  it("may be closed by those who hear of its exit, whom close does not leave behind", function()
    local w, returned = open(), false
    w:on("exit", function()
      w:close()
      returned = true
    end)
    w:close()
    assert.is_true(returned)
  end)

  -- --- calls -----------------------------------------------------------------------------------

  describe("makes calls that", function()
    it("find the state that earlier ones left", function()
      local w, other = open(), open()
      assert.equal(1, w.call.count():await())
      assert.equal(2, w:run("count"):await())
      assert.equal(3, w.call.nested():await())
      assert.equal(1, other.call.count():await())
      assert.same({ nil, 2, nil }, { w.call.echo(nil, 2, nil):await() })
    end)

    it("may be children of a group, which ends them", function()
      local w, entered = open(), treadle.event()
      local waiting
      local ok, err = pcall(treadle.group, function(g)
        assert.equal(1, g:call(w, "count"):await())
        assert.equal("x", g:run(w, "echo", { "x" }):await())
        waiting = g:call(w, "wait", entered)
        assert.is_true(entered:wait(TIMEOUT))
        error("on purpose", 0)
      end)
      assert.same({ false, "on purpose" }, { ok, err.value })
      assert.equal("cancelled", waiting:state())
      assert.equal(2, w.call.count():await())
    end)

    it("run one at a time, unless told", function()
      local w, entered, go = open(), treadle.event(), treadle.event()
      local f, g = w.call.hold(entered, go), w.call.count()
      assert.is_true(entered:wait(TIMEOUT))
      assert.equal("pending", g:state())
      go:set()
      assert.equal(0, f:await())
      assert.equal(1, g:await())

      local both = open { concurrency = 2 }
      entered, go = treadle.event(), treadle.event()
      f, g = both.call.hold(entered, go), both.call.count()
      assert.equal(1, g:await())
      go:set()
      assert.equal(1, f:await())
    end)

    it("never mix up, whoever makes them", function()
      local w, list = open { concurrency = 3 }, {}
      for who = 1, 4 do
        list[who] = treadle.spawn(function()
          for i = 1, 500 do
            local a, b = w.call.echo(who, i):await()
            assert(a == who and b == i)
            if i % 50 == 0 then
              treadle.sleep(0)
            end
          end
          return who
        end)
      end
      assert.same({ 1, 2, 3, 4 }, treadle.all(list):await())
    end)

    it("fail as those of a pool", function()
      local w, log = open { name = "forge" }
      local err = select(2, w.call.fail("oh"):pawait())
      assert.same({ "task", "fail" }, { err.kind, err.task })
      local late = w:run("wait", { treadle.event() }, { timeout = 0.05 })
      assert.equal("timeout", helpers.outcome(late))
      assert.equal(1, w.call.count():await()) -- it ended by itself: the state is there
      assert.equal("timeout", helpers.outcome(open { timeout = 0.05 }.call.wait(treadle.event())))
      assert.equal("payload", helpers.outcome(w.call.echo(coroutine.create(print))))
      assert.matches("thread 'forge' has no task 'cout'; it has: close_self, count, ",
        helpers.error_here(function() w.call.cout() end))
      assert.matches("thread 'forge' has no task 'cout', did you mean 'count'",
        helpers.error_here(function() w:run("cout") end))
      assert.matches("unknown option 'worker'",
        helpers.error_here(function() w:run("count", {}, { worker = 1 }) end))
      assert.same(7, w:run(function(n) return n end, { 7 }):await())
      assert.is_nil(log.exit)
    end)

    it("are counted", function()
      local w = open()
      w.call.count():await()
      assert.equal(1, w:stats().tasks.count.runs)
      w:close()
      assert.equal(1, w:stats().done)
    end)
  end)

  it("checks what it is given", function()
    for _, case in ipairs {
      { "bad argument #1 to 'thread' %(string or table expected, got nil%)" },
      { "unknown option 'threads'", "thread_tasks", { threads = 2 } },
      { "option 'concurrency'", "thread_tasks", { concurrency = 0 } },
      { "expected, got one task", treadle.task { fn = print } },
      { "task 'x' is a number", { x = 1 } },
    } do
      local module, given = case[2], case[3]
      assert.matches(case[1], helpers.error_here(function() treadle.thread(module, given) end))
    end
    local ok, err = pcall(treadle.thread, "no.such.module")
    assert.same({ false, "load" }, { ok, err.kind })
    local w = open { name = "forge" }
    assert.equal("thread 'forge'", tostring(w))
    assert.matches("unknown event 'massage', did you mean 'message'",
      helpers.error_here(function() w:on("massage", print) end))
    assert.matches("#2 to 'on'", helpers.error_here(function() w:on("exit") end))
    assert.matches("thread expected, got nil", helpers.error_here(function() w.send() end))
    assert.matches("#1 to 'recv'", helpers.error_here(function() w:recv("1") end))
    assert.matches("#1 to 'close'", helpers.error_here(function() w:close("1") end))
  end)

  it("tells its worker who it is", function()
    local w = open { name = "forge", data = { unit = "mm" }, init = "prepare" }
    assert.same({ id = 1, name = "forge", unit = "mm", parent = "parent of thread 'forge'",
      pool = "thread 'forge' (1 workers)", main = false }, w.call.info():await())
    assert.equal(101, w.call.count():await())
    assert.is_nil(treadle.parent)
  end)

  it("may be made by a thread", function()
    local w = open { name = "outer" }
    assert.same({ "x", 1, "outer" }, { w.call.inner():await() })
  end)

  it("works with treadle.using", function()
    local n = treadle.using(open(), function(x)
      return x.call.count():await()
    end)
    assert.equal(1, n)
    local w = made[1]
    assert.equal("thread 'thread_tasks' (over)", tostring(w))
    assert.equal("closed", helpers.outcome(w.call.count()))
  end)

  -- --- messages ---------------------------------------------------------------------------------

  describe("exchanges messages that", function()
    it("arrive in order, 10,000 each way", function()
      for _, slow in ipairs { false, true } do
        local w = open { data = { listens = true, slow = slow } }
        local got = collect(w)
        for i = 1, 10000 do
          w:send(i)
        end
        w:close()
        assert.equal(10000, #got)
        for i = 1, 10000 do
          assert(got[i] == i)
        end
      end
    end)

    it("are of every kind", function()
      local w = open { data = { listens = true } }
      local values = { n = 5, nil, false, "text", { 1, { 2 } }, -0.5 }
      for i = 1, values.n do
        w:send(values[i])
      end
      for i = 1, values.n do
        local value, ok = w:recv(TIMEOUT)
        assert.is_true(ok)
        assert.same(values[i], value)
      end
      local ok, err = pcall(w.send, w, coroutine.create(print))
      assert.same({ false, "payload" }, { ok, err.kind })
      assert.matches("thread_spec.lua", err.traceback, 1, true)
      err = select(2, w.call.send_coroutine():pawait())
      assert.matches("cannot send a coroutine", err.message)
      assert.same({ nil, false, "timeout" }, { w:recv(0.001) })
      assert.same({ nil, false, "timeout" }, { w:recv(0) })
    end)

    it("wait for the first who listens", function()
      local w = open()
      w.call.pass(300):await()
      local got, stop = collect(w)
      helpers.poll_until(function() return #got == 300 end)
      stop()
      w.call.pass(2):await() -- nobody takes them
      assert.same({ 1, true }, { w:recv(TIMEOUT) })
      local more = collect(w)
      helpers.poll_until(function() return #more == 1 end)
      assert.same({ 2 }, more)
      assert.equal(300, #got)
    end)

    it("wait for the first who listens in the worker", function()
      local w = open()
      for i = 1, 3 do
        w:send(i)
      end
      w.call.listen():await()
      helpers.poll_until(function() return #w.call.handled():await() == 3 end)
      assert.same({ 1, 2, 3 }, w.call.handled():await())
    end)

    it("go to all who listen, one after the other, though one waits", function()
      local w, log, gate = open(), {}, treadle.event()
      w:on("message", function(value)
        log[#log + 1] = "a" .. value
        gate:wait()
        log[#log + 1] = "A" .. value
      end)
      local stop = w:on("message", function(value) log[#log + 1] = "b" .. value end)
      w.call.pass(2):await()
      helpers.poll_until(function() return #log == 1 end)
      gate:set()
      helpers.poll_until(function() return #log == 6 end)
      assert.same({ "a1", "A1", "b1", "a2", "A2", "b2" }, log)
      stop()
      stop()
      w.call.pass(1):await()
      helpers.poll_until(function() return #log == 8 end)
      assert.equal("A1", log[8])
    end)

    it("can be received in a task", function()
      local w = open()
      assert.same({ n = 3, nil, false, "timeout" },
        { n = 3, w.call.receive(0.001):await() })
      local f = w.call.drain()
      for i = 1, 100 do
        w:send(i)
      end
      w:close()
      assert.equal(100, #f:await())
    end)

    it("hold up neither calls nor each other in the worker", function()
      local w = open { data = { listens = true } }
      local entered, go = treadle.event(), treadle.event()
      w:send { wait = go, entered = entered }
      w:send "next"
      assert.is_true(entered:wait(TIMEOUT))
      assert.equal(1, w.call.count():await())
      assert.same({}, w.call.handled():await())
      go:set()
      w:recv(TIMEOUT)
      assert.equal("next", (w:recv(TIMEOUT)))
    end)

    it("leave the host's loop to others after each hundred", function()
      local w, n = open(), 0
      w.call.pass(1000):await()
      w:on("message", function() n = n + 1 end)
      while n < 1000 do
        local before = n
        treadle.poll()
        assert.is_true(n - before <= 100)
      end
    end)
  end)

  it("reports what a handler raises, and goes on", function()
    local w, log = open { data = { listens = true } }
    w:send { raise = "bang" }
    w:send { raise = { code = 7 } }
    w:send "after"
    assert.equal("after", (w:recv(TIMEOUT)))
    helpers.poll_until(function() return #log.errors == 2 end)
    local first, second = log.errors[1], log.errors[2]
    assert.same({ "task", "bang" }, { first.kind, first.message })
    assert.matches("thread_tasks.lua:%d+: in function", first.traceback)
    assert.equal(7, second.value.code)
    assert.equal(1, w.call.count():await())
    w:close()
    assert.equal("closed", ended(log))
    assert.equal(2, #log.errors)
  end)

  it("writes errors that nobody listens to in one piece", function()
    local _, err, code = helpers.child("treadle", [[
      local w = treadle.thread("thread_tasks", { name = "forge", data = { listens = true } })
      w:on("message", function(v) error("in the host: " .. v) end)
      w:send { raise = "bang" }
      w:send "x"
      w:close()
    ]])
    assert.equal(0, code)
    assert.matches("treadle: error in thread 'forge': bang\nstack traceback:\n", err, 1, true)
    assert.matches("treadle: error in a listener to 'message': .-in the host: x\nstack trace", err)
  end)

  -- --- ends -------------------------------------------------------------------------------------

  describe("when it is closed", function()
    it("has handled what was called and sent, and run on_close, once", function()
      local closed = treadle.counter()
      local w, log = open { data = { listens = true, slow = true, closed = closed,
        closing = "wait" } }
      local got, calls = collect(w), {}
      for i = 1, 50 do
        calls[i] = w.call.count()
        w:send(i)
      end
      w:close()
      w:close()
      assert.equal(50, treadle.all(calls):await()[50])
      assert.equal(51, #got)
      assert.same({ last = true, handled = 50, count = 51 }, got[51])
      assert.same({ event = "exit", reason = "closed" }, log.exit)
      assert.equal(1, log.exits)
      assert.equal(1, closed:get())
      assert.has_error(function() w.call.on_close() end)
    end)

    it("takes nothing more", function()
      local w, entered, go = open(), treadle.event(), treadle.event()
      local f = w.call.hold(entered, go)
      assert.is_true(entered:wait(TIMEOUT))
      local closing = treadle.spawn(w.close, w)
      local ok, err = pcall(w.send, w, 1)
      assert.same({ false, "closed" }, { ok, err.kind })
      assert.equal("the thread is closed", err.message)
      assert.equal("closed", helpers.outcome(w.call.count()))
      go:set()
      closing:await()
      assert.equal("resolved", f:state())
      err = select(2, w.call.count():pawait())
      assert.same({ "closed", "the thread is closed" }, { err.kind, err.message })
      assert.same({ nil, false, "closed" }, { w:recv() })
    end)

    it("keeps what it has sent for who receives", function()
      local w, log = open()
      w.call.pass(3):await()
      w:close()
      assert.equal("closed", log.exit.reason)
      assert.same({ 1, 2, 3 }, { (w:recv()), (w:recv()), (w:recv()) })
      assert.same({ nil, false, "closed" }, { w:recv() })
    end)

    it("tells of its exit after the last message was handled", function()
      local w, gate, log = open(), treadle.event(), {}
      w:on("message", function(value)
        gate:wait()
        log[#log + 1] = value
      end)
      w:on("exit", function() log[#log + 1] = "exit" end)
      w.call.pass(3):await()
      local closing = treadle.spawn(w.close, w)
      helpers.poll_until(function() return helpers.outcome(w.call.count()) == "closed" end)
      assert.same({}, log)
      gate:set()
      closing:await()
      assert.same({ 1, 2, 3, "exit" }, log)
    end)

    it("by who handles its message, does not wait for that", function()
      local w, log = open()
      local closed
      w:on("message", function()
        w:close()
        closed = log.exits
      end)
      w.call.send(1):await()
      assert.equal("closed", ended(log))
      assert.equal(0, closed)
    end)

    it("with a limit, does not wait for ever for who handles its messages", function()
      local w, log = open { terminate_timeout = 0.01 }
      local entered, gate = treadle.event(), treadle.event()
      w:on("message", function()
        entered:set()
        gate:wait()
      end)
      w.call.send(1):await()
      assert.is_true(entered:wait(TIMEOUT))
      w:close(0.01)
      assert.equal(0, log.exits)
      gate:set()
      ended(log)
    end)

    it("by who hears of its exit or an error, does nothing more", function()
      local w, log = open { data = { closing = "raise" } }
      local closes = 0
      for _, event in ipairs { "exit", "error" } do
        w:on(event, function()
          w:close()
          closes = closes + 1
        end)
      end
      w:close()
      helpers.poll_until(function() return closes == 2 end)
      assert.equal(1, log.exits)
    end)

    it("reports an error of on_close", function()
      local w, log = open { data = { closing = "raise" } }
      w:close()
      assert.equal("closed", log.exit.reason)
      assert.equal(1, #log.errors)
      assert.matches("no end", log.errors[1].message)
      assert.matches("thread_tasks.lua", log.errors[1].traceback)
    end)

    it("too late, is terminated #computing", function()
      local limit
      local exit = helpers.with_limit(function(seconds)
        limit = seconds
        local entered = treadle.event()
        local w, log = open { data = { closing = "spin", entered = entered } }
        w:close(seconds)
        return entered:is_set() and log.exit
      end)
      assert.equal("terminated", exit.reason)
      assert.matches(("not finished within %s s of closing the thread"):format(limit), exit.message,
        1, true)
    end)

    it("in a task, ends when that has returned", function()
      local closed = treadle.counter()
      local w, log = open { data = { closed = closed } }
      assert.equal("closing", w.call.close_self():await())
      assert.equal("closed", ended(log))
      assert.equal(1, closed:get())
      assert.equal("closed", helpers.outcome(w.call.count()))
      local ok, err = pcall(w.send, w, 1)
      assert.same({ false, "closed" }, { ok, err.kind })
    end)

    it("by two, ends for both", function()
      local w, log = open()
      treadle.all { treadle.spawn(w.close, w), treadle.spawn(w.close, w) }:await()
      assert.equal(1, log.exits)
    end)
  end)

  describe("when it is terminated", function()
    it("rejects what runs and waits, and runs no on_close #computing", function()
      local closed, entered = treadle.counter(), treadle.event()
      local w, log = open { data = { closed = closed } }
      local f, g = w.call.spin(entered), w.call.count()
      assert.is_true(entered:wait(TIMEOUT))
      w:terminate("enough")
      w:terminate("again")
      for _, call in ipairs { f, g, w.call.count() } do
        local err = select(2, call:pawait())
        assert.same({ "closed", "enough" }, { err.kind, err.message })
      end
      assert.equal("terminated", ended(log))
      assert.equal("enough", log.exit.message)
      local err = select(2, w.call.count():pawait())
      assert.same({ "closed", "enough" }, { err.kind, err.message })
      w:close()
      assert.equal(0, closed:get())
      assert.same({}, log.errors)
    end)

    it("idle, has handed on what it sent", function()
      local w, log = open()
      local got = collect(w)
      w.call.pass(1000):await()
      w:terminate()
      assert.equal("terminated", ended(log))
      assert.equal(1000, #got)
    end)

    it("by itself, says so", function()
      local w, log = open()
      assert.equal("closed", helpers.outcome(w.call.terminate_self("tired")))
      assert.equal("terminated", ended(log))
      assert.equal("tired", log.exit.message)
      w, log = open()
      assert.equal("closed", helpers.outcome(w.call.terminate_self()))
      assert.equal("terminated", ended(log))
      assert.equal("the thread has terminated itself", log.exit.message)
    end)

    it("stuck in C, does not wait for that", function()
      local entered, gate = treadle.event(), helpers.new_path()
      local w, log = open()
      local f = w.call.stuck(entered, gate)
      assert.is_true(entered:wait(TIMEOUT))
      w:terminate()
      assert.equal("closed", helpers.outcome(f))
      w:close()
      assert.equal("terminated", ended(log))
      helpers.write(gate, "")
    end)
  end)

  --- How a state is lost: what brings it about, the kind of its call's error, and of the event.
  local LOSSES = {
    { "a call that computes is timed out", "timeout", "crashed", function(w, entered, _, seconds)
      local f = w:run("spin", { entered }, { timeout = seconds })
      helpers.poll_until(function() return entered:is_set() or f:state() ~= "pending" end)
      return entered:is_set() and f
    end },
    { "a call that computes is cancelled by force", "cancelled", "crashed", function(w, entered)
      local f = w.call.spin(entered)
      assert(entered:wait(TIMEOUT))
      return f, function() f:cancel { force = true } end
    end },
    { "a call is stuck in C", "cancelled", "crashed", function(w, entered, gate)
      local f = w.call.stuck(entered, gate)
      assert(entered:wait(TIMEOUT))
      return f, function() f:cancel { force = true } end
    end },
    { "a call exceeds its memory", "memory", "memory", function(w)
      return w.call.hog()
    end },
  }

  for _, case in ipairs(LOSSES) do
    local what, kind, event_kind, begin = case[1], case[2], case[3], case[4]
    it(("is over when %s, without a window #computing"):format(what), function()
      for _ = 1, 3 do
        local closed, w, log, got, go
        local marks, gate = treadle.counter(), helpers.new_path()
        local f = helpers.with_limit(function(seconds)
          closed = treadle.counter()
          w, log = open { data = { closed = closed }, max_memory = 2 ^ 24 }
          got = collect(w)
          w.call.pass(10):await()
          local f
          f, go = begin(w, treadle.event(), gate, seconds)
          return f
        end)
        local queued = {}
        for i = 1, 50 do
          queued[i] = w.call.mark(marks)
        end
        if go then
          go()
        end
        assert.equal(kind, helpers.outcome(f))
        local late = w.call.mark(marks)
        queued[#queued + 1] = late
        local limit = treadle.now() + TIMEOUT
        repeat -- from before the loss is known here to after the end
          if #queued < 300 then
            queued[#queued + 1] = w.call.mark(marks)
          end
          treadle.poll()
          assert(treadle.now() < limit)
        until log.exit or marks:get() > 0
        helpers.write(gate, "")
        queued[#queued + 1] = w.call.mark(marks)
        for _, call in ipairs(queued) do
          local err = select(2, call:pawait())
          assert.equal("closed", err.kind)
          assert.matches("^the state is lost: ", err.message)
        end
        assert.equal(0, marks:get())
        assert.equal(0, closed:get())
        assert.equal("crashed", ended(log))
        assert.equal(event_kind, log.exit.error.kind)
        assert.equal(1, #log.errors)
        assert.equal(log.exit.error, log.errors[1])
        assert.equal(10, #got)
        local ok, err = pcall(w.send, w, 1)
        assert.same({ false, "closed" }, { ok, err.kind })
        assert.matches("^the state is lost: ", err.message)
      end
    end)
  end

  it("loses all that waits in the state with it #computing", function()
    local log, waits
    helpers.with_limit(function(seconds)
      local w
      w, log = open { concurrency = 3 }
      local entered, spins = treadle.event(), treadle.event()
      waits = w.call.wait(entered)
      assert.is_true(entered:wait(TIMEOUT))
      assert.equal("timeout", helpers.outcome(w:run("spin", { spins }, { timeout = seconds })))
      return spins:is_set()
    end)
    assert.equal("crashed", helpers.outcome(waits))
    assert.equal("crashed", ended(log))
  end)

  it("is over when its state is lost while it closes #computing", function()
    local log, g
    helpers.with_limit(function(seconds)
      local w
      w, log = open()
      assert.equal(1, w.call.count():await())
      local entered = treadle.event()
      local f = w:run("spin", { entered }, { timeout = seconds })
      g = w.call.count()
      w:close()
      assert.equal("timeout", helpers.outcome(f))
      return entered:is_set()
    end)
    assert.matches("the state is lost", select(2, g:pawait()).message)
    assert.equal("crashed", ended(log))
  end)

  it("keeps its state when what was stopped ended by itself", function()
    local w, log = open()
    assert.equal(1, w.call.count():await())
    local entered = treadle.event()
    local f = w.call.wait(entered)
    assert.is_true(entered:wait(TIMEOUT))
    f:cancel { force = true }
    assert.equal(2, w.call.count():await())
    assert.is_nil(log.exit)
  end)

  it("cannot be given another state from within", function()
    local w = open()
    for _, args in ipairs { { "recycle" }, { "resize", 2 } } do
      local err = select(2, w.call.renew(unpack(args)):pawait())
      assert.matches("'" .. args[1] .. "' is for pools: a thread keeps its one state", err.message)
    end
    assert.equal(1, w.call.count():await())
  end)

  it("ends well at every stage, however it ends #computing", function()
    local ends = {
      close = function(w) w:close(0.02) end,
      terminate = function(w) w:terminate() end,
    }
    local stages = {
      fresh = function() end,
      computing = function(w) return w.call.spin(treadle.event()) end,
      waiting = function(w)
        local entered = treadle.event()
        local f = w.call.wait(entered)
        assert(entered:wait(TIMEOUT))
        return f
      end,
      messages = function(w)
        for i = 1, 100 do w:send(i) end
      end,
      ["in a handler"] = function(w)
        local entered = treadle.event()
        w:send { spin = entered }
        assert(entered:wait(TIMEOUT))
      end,
      ["sending"] = function(w) return w.call.pass(1000) end,
      ["own close"] = function(w) return w.call.close_self() end,
      ["own end"] = function(w) return w.call.terminate_self() end,
    }
    for how, finish in pairs(ends) do
      for stage, begin in pairs(stages) do
        local w, log = open { data = { listens = true } }
        local f = begin(w)
        finish(w)
        w:close(TIMEOUT)
        assert.equal(1, log.exits, stage .. ", " .. how)
        assert.is_true(f == nil or f:state() ~= "pending", stage .. ", " .. how)
      end
    end
  end)

  it("that nobody holds ends, and runs on_close", function()
    local closed, exits = treadle.counter(), 0
    local function drop()
      local w = treadle.thread("thread_tasks", { data = { listens = true, closed = closed } })
      w:on("exit", function() exits = exits + 1 end)
      w:on("message", function() end)
      for i = 1, 10 do
        w:send(i)
      end
      return w.call.drain() -- ends with the thread's inbox
    end
    local f = drop()
    helpers.poll_until(function()
      require("jit").flush()
      collectgarbage()
      return exits == 1
    end)
    assert.equal(1, closed:get())
    assert.equal("resolved", f:state())
  end)

  it("holds up no script that only listens", function()
    for _, program in ipairs { "treadle", "luajit" } do
      local out, err, code = helpers.child(program, [[
        local treadle = require "treadle"
        local w = treadle.thread("thread_tasks", { data = { listens = true } })
        w:on("message", print)
        w:on("exit", print)
        w.call.count():await()
        print "end"
      ]])
      assert.same({ "end\n", "", 0 }, { out, err, code })
    end
  end)

  it("may be made of the running file", function()
    local out, err, code = helpers.child("treadle", [[
      local M, n = {}, 0
      function M.add(k) n = n + k return n end
      function M.on_close() treadle.parent:send("sum " .. n) end
      if treadle.is_main then
        local w = treadle.thread(M)
        w:on("message", print)
        w.call.add(1)
        w.call.add(2)
        w:close()
        assert(not pcall(function() return w.call.on_close end))
        local mute = treadle.thread({}, { name = "mute" })
        mute:send "x"
        print(mute:recv())
        mute:close()
      elseif treadle.worker.name == "mute" then
        treadle.parent:on("message", function(v) treadle.parent:send(v .. v) end)
      end
      return M
    ]])
    assert.same({ "sum 3\nxx\ttrue\n", "", 0 }, { out, err, code })
  end)

  it("cannot be made while a worker loads, nor receives there", function()
    helpers.module("guard_thread", [[
      require("treadle").thread("thread_tasks")
      return {}
    ]])
    local ok, err = pcall(treadle.thread, "guard_thread")
    assert.is_false(ok)
    assert.matches("a thread cannot be made while a worker loads its module: ", err.message)
    helpers.module("early_thread", [[
      require("treadle").parent:recv()
      return {}
    ]])
    ok, err = pcall(treadle.thread, "early_thread")
    assert.is_false(ok)
    assert.matches("nothing comes before the module is loaded", err.message)
  end)

  it("may end before anybody holds it", function()
    helpers.module("short_thread", [[
      local treadle = require "treadle"
      treadle.spawn(function()
        treadle.sleep(0)
        treadle.parent:send("that was all")
        treadle.worker.pool:close()
      end)
      return {}
    ]])
    for _ = 1, 20 do
      local w, log = open({}, "short_thread")
      local got = collect(w)
      assert.equal("closed", ended(log))
      assert.same({ "that was all" }, got)
    end
  end)

  it("goes with luv's loop in the worker", function()
    helpers.module("luv_thread", [[
      local treadle, uv = require "treadle", require "luv"
      local ticks = 0
      local timer = uv.new_timer()
      timer:start(1, 1, function() ticks = ticks + 1 end)
      treadle.parent:on("message", function(v)
        treadle.sleep(0.005)
        treadle.parent:send { v, ticks > 0 }
      end)
      return { on_close = function() timer:close() treadle.parent:send "end" end }
    ]])
    local w = open({}, "luv_thread")
    local got = collect(w)
    w:send(1)
    w:send(2)
    w:close()
    assert.same({ { 1, true }, { 2, true }, "end" }, got)
  end)

  it("costs one thread, and leaves none", function()
    local before = helpers.threads()
    for _ = 1, 20 do
      local w = treadle.thread("thread_tasks")
      assert.equal(1, w.call.count():await())
      w:close()
    end
    assert.is_true(helpers.threads() <= before + 1) -- the supervisor's
  end)
end)

describe("a pool's worker", function()
  local done, pool

  setup(function()
    done = helpers.watch()
  end)

  before_each(function()
    pool = treadle.pool("thread_tasks", { threads = 2 })
  end)

  after_each(function()
    pool:close(TIMEOUT)
  end)

  teardown(function()
    done()
  end)

  it("sends to those who listen to the pool, and to nobody else", function()
    local heard = {}
    pool:run("send", { "unheard" }, { worker = 1 }):await()
    local stop = pool:on("message", function(event) heard[#heard + 1] = event end)
    for i = 1, 1000 do
      pool:run("send", { { i } }, { worker = i % 2 + 1 })
    end
    pool:drained():await()
    helpers.poll_until(function() return #heard == 1000 end)
    local last = { 0, 0 }
    for _, event in ipairs(heard) do
      assert.equal("message", event.event)
      assert(event.value[1] > last[event.worker]) -- in order, of each
      last[event.worker] = event.value[1]
    end
    assert.same({ 1000, 999 }, last)
    stop()
    pool:run("send", { "unheard" }):await()
    treadle.poll()
    assert.equal(1000, #heard)
  end)

  it("is heard before the result of the call that has sent", function()
    local heard = 0
    pool:on("message", function() heard = heard + 1 end)
    for i = 1, 200 do
      pool:run("send", { i }, { worker = 1 }):await()
      assert.equal(i, heard)
    end
  end)

  it("hears what cannot travel, or is too large", function()
    pool:on("message", function() end)
    local err = select(2, pool.call.send_coroutine():pawait())
    assert.matches("cannot send a coroutine %(message%[1%]%)", err.message)
    local small = treadle.pool("thread_tasks", { threads = 1, max_payload = 1000 })
    small:on("message", function() end)
    local f = small:run(function()
      return pcall(function()
        require("treadle").parent:send(("x"):rep(2000))
      end)
    end)
    assert.is_false((f:await()))
    small:close()
  end)

  it("gives away a buffer that it moves", function()
    local value
    pool:on("message", function(event) value = event.value end)
    local f = pool:run(function()
      local runtime = require "treadle"
      local buf = runtime.buffer("double", 3)
      buf:set(1, 7)
      runtime.parent:send(runtime.move(buf))
      return tostring(buf)
    end)
    assert.equal("treadle.buffer (moved)", f:await())
    helpers.poll_until(function() return value end)
    assert.equal(7, value:get(1))
  end)

  it("has no messages from its parent", function()
    for _, name in ipairs { "receive", "listen" } do
      local err = select(2, pool.call[name]():pawait())
      assert.matches("only a thread has messages from its parent", err.message)
    end
    assert.equal("parent of pool 'thread_tasks'", pool.call.info():await().parent)
  end)
end)
