--- Abort controllers and their signals.
local helpers = require "helpers"
local treadle = require "treadle"

describe("an abort controller", function()
  local done, pool, wide

  setup(function()
    done = helpers.watch()
    pool = treadle.pool("tasks", { threads = 1 })
    wide = treadle.pool("tasks", { threads = 2, concurrency = 100 })
  end)

  teardown(helpers.clean)

  local function started(gate)
    helpers.eventually(function() return helpers.read(gate .. ".entered") ~= "" end)
  end

  -- Seconds until the next timer, when nothing else is ready.
  local function next_timer()
    repeat until treadle.poll() == 0
    return treadle.next_timeout()
  end

  local function count(signal)
    local n, node = 0, signal._ring.after
    while node ~= signal._ring do
      n, node = n + 1, node.after
    end
    return n
  end

  local function is_watched(signal)
    return signal._timer or next(signal._links) ~= nil
  end

  describe("cancels", function()
    it("every call that was given its signal, with the reason", function()
      local a, list = treadle.abort(), {}
      for i = 1, 20 do
        -- the controller itself is as good
        list[i] = wide:run("sleep", { 1000 }, { signal = i % 2 == 0 and a or a.signal })
      end
      assert.is_true(a:abort("enough"))
      for i = 1, 20 do
        assert.equal("cancelled", list[i]:state())
        local ok, err = list[i]:pawait()
        assert.same({ false, "cancelled", "enough" }, { ok, err.kind, err.message })
      end
    end)

    it("calls that are queued: they never run", function()
      local a, gate, path = treadle.abort(), helpers.new_path(), helpers.new_path()
      local held = pool.call.hold(gate)
      started(gate)
      for _ = 1, 10 do
        pool:run("note", { path, "ran" }, { signal = a.signal })
      end
      a:abort()
      helpers.write(gate, "open")
      held:await()
      pool.call.add(1, 2):await()
      assert.equal("", helpers.read(path))
    end)

    it("calls that run: their waits raise with the reason", function()
      local a, path = treadle.abort(), helpers.new_path()
      pool:run(function(log)
        local t, h = require "treadle", require "helpers"
        h.write(log, "started")
        h.write(log, select(2, pcall(t.sleep, 1000)).message)
      end, { path }, { signal = a.signal })
      helpers.eventually(function() return helpers.read(path) == "started" end)
      a:abort("enough")
      helpers.eventually(function() return helpers.read(path) == "enough" end)
    end)

    it("calls that wait for an argument", function()
      local a, argument, path = treadle.abort(), treadle.future(), helpers.new_path()
      local f = pool:run("note", { path, argument }, { signal = a.signal })
      a:abort("enough")
      assert.equal("enough", select(2, f:pawait()).message)
      assert.equal(0, count(a.signal))
    end)

    it("futures that are bound, combined and chained ones with what they wait for", function()
      local a, first = treadle.abort(), treadle.future()
      assert.equal(first, a.signal:bind(first))
      local inner = treadle.future()
      local all = a.signal:bind(treadle.all { inner, treadle.resolved(1) })
      local chained = a.signal:bind(inner:and_then(function() end))
      a:abort("enough")
      for _, f in ipairs { first, all, inner, chained } do
        assert.equal("enough", select(2, f:pawait()).message)
        assert.equal("cancelled", f:state())
      end
    end)

    it("sleeps, of the main chunk and of coroutines", function()
      local a = treadle.abort()
      local slept = treadle.spawn(function() treadle.sleep(1000, { signal = a.signal }) end)
      local endless = treadle.spawn(function() treadle.sleep(math.huge, { signal = a }) end)
      treadle.spawn(function()
        treadle.sleep(0.001)
        a:abort("enough")
      end)
      local ok, err = pcall(treadle.sleep, 1000, { signal = a })
      assert.same({ false, "cancelled", "enough" }, { ok, err.kind, err.message })
      assert.equal("enough", select(2, slept:pawait()).message)
      assert.equal("enough", select(2, endless:pawait()).message)
      assert.equal(math.huge, next_timer())
    end)

    it("calls that a task makes, by a controller of the task's", function()
      assert.same({ "cancelled", "enough", 3 }, wide:run(function()
        local t = require "treadle"
        local a, own = t.abort(), t.worker.pool
        local f = own:run("sleep", { 1000 }, { signal = a.signal })
        t.spawn(function()
          t.sleep(0.001)
          a:abort("enough")
        end)
        local _, err = f:pawait()
        return { err.kind, err.message, own.call.add(1, 2):await() }
      end):await())
    end)

    it("once: later aborts change nothing", function()
      local a = treadle.abort()
      assert.is_false(a:aborted())
      assert.is_false(a.signal.aborted)
      assert.is_nil(a.signal.reason)
      assert.is_true(a:abort("first"))
      assert.is_false(a:abort("second"))
      assert.is_true(a:aborted())
      assert.is_true(a.signal.aborted)
      assert.equal("first", a.signal.reason)
      assert.matches("aborted: first", tostring(a), 1, true)
    end)

    it("with a text for any reason", function()
      for _, case in ipairs { { nil, "aborted" }, { 7, "7" }, { false, "false" },
        { select(2, pool.call.boom("bad"):pawait()), "bad" } } do
        local a = treadle.abort()
        a:abort(case[1])
        assert.matches(case[2] .. "$", a.signal.reason)
      end
    end)

    it("all that is bound, also when one of them binds and aborts meanwhile", function()
      local a, inner = treadle.abort(), treadle.future()
      local f, late = treadle.future(), nil
      a.signal:bind(f)
      a.signal:on_abort(function()
        a:abort("again")
        late = a.signal:bind(inner)
      end)
      local last = a.signal:bind(treadle.future())
      a:abort("first")
      assert.equal(inner, late)
      for _, one in ipairs { f, inner, last } do
        assert.equal("first", select(2, one:pawait()).message)
      end
    end)
  end)

  describe("that has aborted", function()
    it("cancels a call at once, and no worker sees it", function()
      local a, path = treadle.abort(), helpers.new_path()
      a:abort("enough")
      local f = pool:run("note", { path, "ran" }, { signal = a.signal })
      assert.equal("cancelled", f:state())
      assert.equal("enough", select(2, f:pawait()).message)
      -- nor are its arguments looked at
      f = pool:run("note", { coroutine.create(print) }, { signal = a.signal })
      assert.equal("cancelled", select(2, f:pawait()).kind)
      pool.call.add(1, 2):await()
      assert.equal("", helpers.read(path))
    end)

    it("cancels a bound future at once, leaves a settled one, ends a sleep", function()
      local a = treadle.abort()
      a:abort("enough")
      assert.equal("cancelled", a.signal:bind(treadle.future()):state())
      assert.equal(7, a.signal:bind(treadle.resolved(7)):await())
      assert.equal("enough", select(2, pcall(treadle.sleep, 1000, { signal = a })).message)
    end)

    it("leaves no rejection that warns", function()
      local _, err, code = helpers.child("luajit", [[
        local treadle = require "treadle"
        local pool = treadle.pool("tasks", { threads = 1 })
        local a = treadle.abort()
        for _ = 1, 5 do pool:run("sleep", { 1000 }, { signal = a }) end
        a:abort()
        pool:run("sleep", { 1000 }, { signal = a })
        for _ = 1, 5 do collectgarbage() treadle.poll(0.001) end
        pool:close()
      ]])
      assert.same({ "", 0 }, { err, code })
    end)
  end)

  it("does not keep a failed call from its warning", function()
    local _, err = helpers.child("luajit", [[
      local treadle = require "treadle"
      local pool = treadle.pool("tasks", { threads = 1 })
      local a = treadle.abort()
      pool:run("boom", { "lost treasure" }, { signal = a })
      pool:run("boom", { treadle.resolved("found late") }, { timeout = 30 })
      pool:run("boom", { "seen" }, { signal = a }):wait()
      for _ = 1, 10 do collectgarbage() treadle.poll(0.001) end
      pool:close()
    ]])
    assert.equal(2, select(2, err:gsub("dropped unseen", "")), err)
    assert.matches("lost treasure", err, 1, true)
    assert.matches("found late", err, 1, true)
  end)

  for _, threads in ipairs { 1, 2 } do
    describe(("with %d worker(s)"):format(threads), function()
      it("an abort hits no later job that reuses the id", function()
        local workers = treadle.pool("tasks", { threads = threads })
        local a = treadle.abort()
        for _ = 1, 50 do -- the record, its number and the worker's entry are used again
          assert.equal(3, workers:run("add", { 1, 2 }, { signal = a.signal }):await())
        end
        local gate = helpers.new_path()
        local f = workers.call.hold(gate, "kept")
        started(gate)
        a:abort()
        helpers.write(gate, "open")
        assert.equal("kept", f:await())
        assert.is_false(workers:run(function() return require("treadle").cancelled() end):await())
        workers:close(helpers.TIMEOUT)
      end)

      it("an aborted job does not take its neighbour down", function()
        local workers = treadle.pool("tasks", { threads = threads, concurrency = 2 })
        local a, first, second = treadle.abort(), helpers.new_path(), helpers.new_path()
        local doomed = workers:run("hold", { first, "doomed" }, { signal = a.signal })
        local kept = workers.call.hold(second, "kept")
        started(first)
        started(second)
        a:abort()
        assert.equal("cancelled", select(2, doomed:pawait()).kind)
        helpers.write(second, "open")
        assert.equal("kept", kept:await())
        assert.equal(3, workers.call.add(1, 2):await())
        workers:close(helpers.TIMEOUT)
      end)

      it("an expired job never runs", function()
        local workers = treadle.pool("tasks", { threads = threads })
        local gates, holds, path = {}, {}, helpers.new_path()
        for i = 1, threads do
          gates[i] = helpers.new_path()
          holds[i] = workers:run("hold", { gates[i] }, { worker = i })
          started(gates[i])
        end
        local a = treadle.abort { timeout = 0.01 }
        local aborted = workers:run("note", { path, "aborted" }, { signal = a })
        local late = workers:run("note", { path, "late" }, { timeout = 0.01 })
        assert.equal("cancelled", select(2, aborted:pawait()).kind)
        assert.equal("timeout", select(2, late:pawait()).kind)
        for i = 1, threads do
          helpers.write(gates[i], "open")
          holds[i]:await()
        end
        workers:broadcast("add", 1, 2):await()
        assert.equal("", helpers.read(path))
        workers:close(helpers.TIMEOUT)
      end)
    end)
  end

  describe("with a timeout", function()
    it("aborts by itself", function()
      local a = treadle.abort { timeout = 0.02 }
      local f = wide:run("sleep", { 1000 }, { signal = a.signal })
      local ok, err = f:pawait()
      assert.same({ false, "cancelled", "aborted after 0.02 s" }, { ok, err.kind, err.message })
      assert.is_true(a:aborted())
      assert.is_false(a:abort("late"))
    end)

    it("says so also when nobody polls, and of 0 from the start", function()
      local a = treadle.abort { timeout = 0.01 }
      local stop = treadle.now() + 0.02
      while treadle.now() < stop do end -- no turn of the loop
      assert.is_true(a.signal.aborted)
      assert.equal("aborted after 0.01 s", a.signal.reason)
      assert.is_true(treadle.abort({ timeout = 0 }):aborted())
      assert.is_false(treadle.abort({ timeout = math.huge }):aborted())
    end)

    it("may be aborted earlier", function()
      local a = treadle.abort { timeout = helpers.TIMEOUT }
      local f = wide:run("sleep", { 1000 }, { signal = a.signal })
      assert.is_true(a:abort("early"))
      assert.equal("early", select(2, f:pawait()).message)
      assert.equal(math.huge, next_timer())
    end)

    it("has a timer only while something is bound", function()
      local a = treadle.abort { timeout = helpers.TIMEOUT }
      assert.equal(math.huge, next_timer())
      local f = a.signal:bind(treadle.future())
      assert.is_true(next_timer() < math.huge)
      f:cancel()
      assert.equal(math.huge, next_timer())
    end)

    it("does not hold up the command's exit", function()
      local out, err, code = helpers.child("treadle", [[
        local pool = treadle.pool("tasks", { threads = 1 })
        local a = treadle.abort { timeout = 1000 }
        print(pool:run("add", { 1, 2 }, { signal = a }):await())
      ]])
      assert.same({ "3\n", "", 0 }, { out, err, code })
    end)
  end)

  describe("that follows others", function()
    it("aborts when one of them does, with its reason", function()
      local first, second = treadle.abort(), treadle.abort()
      local any = treadle.abort { any = { first.signal, second } }
      local f = any.signal:bind(treadle.future())
      assert.is_false(any:aborted())
      second:abort("second")
      first:abort("first")
      assert.equal("second", select(2, f:pawait()).message)
      assert.equal("second", any.signal.reason)
      assert.equal("first", first.signal.reason)
    end)

    it("is aborted when one of them is, also if nothing is bound", function()
      local first = treadle.abort()
      local any = treadle.abort { any = { treadle.abort(), first } }
      first:abort("first")
      assert.is_true(any.signal.aborted)
      assert.equal("first", any.signal.reason)
      assert.is_true(treadle.abort({ any = { any } }):aborted())
    end)

    it("does not abort them", function()
      local first = treadle.abort()
      local any = treadle.abort { any = { first } }
      local f, g = any.signal:bind(treadle.future()), first.signal:bind(treadle.future())
      any:abort("any")
      assert.equal("cancelled", f:state())
      assert.equal("pending", g:state())
      assert.is_false(first:aborted())
      g:cancel()
    end)

    it("follows through many, and has a timeout besides", function()
      local root = treadle.abort { timeout = 0.01 }
      local leaf = root
      for _ = 1, 10 do
        leaf = treadle.abort { any = { leaf, treadle.abort() }, timeout = helpers.TIMEOUT }
      end
      local f = leaf.signal:bind(treadle.future())
      assert.equal("aborted after 0.01 s", select(2, f:pawait()).message)
      assert.equal(math.huge, next_timer())
    end)

    it("is unknown to them when nothing is bound: a long-lived one keeps nothing", function()
      local root = treadle.abort()
      local dropped = setmetatable({}, { __mode = "k" })
      for _ = 1, 100 do
        local any = treadle.abort { any = { root } }
        dropped[any.signal] = true
        any.signal:bind(treadle.future()):cancel()
      end
      treadle.poll()
      assert.equal(0, count(root.signal))
      require("jit").flush()
      collectgarbage()
      collectgarbage()
      assert.is_nil(next(dropped))
    end)
  end)

  describe("keeps nothing of a call that is settled:", function()
    for name, settle in pairs {
      ["by its result"] = function(signal)
        pool:run("add", { 1, 2 }, { signal = signal }):await()
      end,
      ["by an error"] = function(signal)
        pool:run("boom", { 1 }, { signal = signal }):pawait()
      end,
      ["by a timeout"] = function(signal)
        wide:run("sleep", { 1000 }, { signal = signal, timeout = 0 }):pawait()
      end,
      ["by itself"] = function(signal)
        wide:run("sleep", { 1000 }, { signal = signal }):cancel()
      end,
      ["refused"] = function(signal)
        pool:run("echo", { coroutine.create(print) }, { signal = signal }):pawait()
      end,
      ["by hand"] = function(signal)
        local f, resolve = treadle.future()
        signal:bind(f)
        signal:bind(f:and_then(function() end))
        resolve()
        f:await()
      end,
    } do
      it(name, function()
        local a = treadle.abort { timeout = helpers.TIMEOUT, any = { treadle.abort() } }
        settle(a.signal)
        helpers.poll_until(function() return count(a.signal) == 0 end)
        assert.is_false(is_watched(a.signal))
      end)
    end

    it("one signal serves 100,000 calls in the same memory", function()
      local a, list = treadle.abort(), {}
      local function serve(n)
        for _ = 1, n do
          for i = 1, 100 do
            list[i] = wide:run("add", { i, 1 }, { signal = a.signal })
          end
          for i = 1, 100 do
            assert(list[i]:await() == i + 1)
          end
        end
        treadle.poll()
        assert.equal(0, count(a.signal))
        collectgarbage()
        collectgarbage()
        return collectgarbage("count")
      end
      local before = serve(50)
      local after = serve(1000)
      assert.is_true(after - before < 256, ("%d KiB more"):format(after - before))
    end)
  end)

  describe("tells", function()
    it("a listener the reason, in a coroutine that may wait", function()
      local a, told = treadle.abort(), {}
      a.signal:on_abort(function(reason)
        treadle.sleep(0.001)
        told[#told + 1] = reason
      end)
      a:abort("enough")
      assert.same({}, told)
      helpers.poll_until(function() return #told == 1 end)
      assert.same({ "enough" }, told)
    end)

    it("listeners in their order, but for those that have left", function()
      local a, told = treadle.abort(), {}
      local leave = {}
      for i = 1, 5 do
        leave[i] = a.signal:on_abort(function() told[#told + 1] = i end)
      end
      leave[2]()
      leave[2]()
      leave[4]()
      assert.equal(3, count(a.signal))
      a:abort()
      leave[5]()
      assert.same({ 1, 3, 5 }, told)
    end)

    it("a listener that comes too late in the next turn, if it has not left", function()
      local a, told = treadle.abort(), {}
      a:abort("enough")
      a.signal:on_abort(function(reason) told[#told + 1] = reason end)
      local leave = a.signal:on_abort(function() told[#told + 1] = "left" end)
      leave()
      assert.same({}, told)
      treadle.poll()
      assert.same({ "enough" }, told)
    end)

    it("the others also when one raises, which prints a warning", function()
      local out, err = helpers.child("luajit", [[
        local treadle = require "treadle"
        local a = treadle.abort()
        a.signal:on_abort(function() error("oops") end)
        a.signal:on_abort(function() io.stdout:write "told" end)
        a:abort()
        for _ = 1, 5 do collectgarbage() end
      ]])
      assert.equal("told", out)
      assert.equal(1, select(2, err:gsub("oops\n", "")), err)
    end)
  end)

  it("checks what it is given, at the caller's line", function()
    local a = treadle.abort()
    for message, fn in pairs {
      ["'abort' (table expected, got number)"] = function() treadle.abort(1) end,
      ["unknown option 'timout', did you mean 'timeout'?"] =
        function() treadle.abort({ timout = 1 }) end,
      ["option 'timeout': seconds"] = function() treadle.abort({ timeout = -1 }) end,
      ["option 'any': a list of signals expected, got table"] =
        function() treadle.abort({ any = a }) end,
      ["option 'any': a list of signals expected"] = function() treadle.abort({ any = { 1 } }) end,
      ["'any': a list of signals"] = function() treadle.abort({ any = { x = a } }) end,
      ["option 'signal': a signal of treadle.abort() expected, got table"] =
        function() pool:run("add", {}, { signal = {} }) end,
      ["option 'signal': a signal"] = function() treadle.sleep(1, { signal = 1 }) end,
      ["did you mean 'signal'?"] = function() treadle.sleep(1, { sigal = a }) end,
      ["'on_abort' (function expected, got nil)"] = function() a.signal:on_abort() end,
      ["'bind' (future expected, got table)"] = function() a.signal:bind({}) end,
      ["'abort' (abort controller expected, got string): call it with a colon"] =
        function() a.abort("why") end,
      ["'aborted' (abort controller expected"] = function() a.aborted() end,
      ["'bind' (signal expected, got table): call it with a colon"] =
        function() a.signal.bind(treadle.future()) end,
      ["'on_abort' (signal expected"] = function() a.signal.on_abort(print) end,
    } do
      assert.matches(message, helpers.error_here(fn), 1, true)
    end
    assert.is_false(a:aborted())
  end)

  it("cannot travel", function()
    local ok, err = pool.call.echo(treadle.abort().signal):pawait()
    assert.same({ false, "payload" }, { ok, err.kind })
    assert.matches("arguments[1]", err.message, 1, true)
  end)

  it("leaves no thread and no descriptor", function()
    pool:close(helpers.TIMEOUT)
    wide:close(helpers.TIMEOUT)
    done()
  end)
end)
