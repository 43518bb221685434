--- inline: the host runs queued jobs itself while it awaits.
local helpers = require "helpers"
local treadle = require "treadle"

describe("a pool with inline", function()
  local pools = {}
  local done

  local function open(options, tasks)
    options.inline = true
    local pool = treadle.pool(tasks or "tasks", options)
    pools[#pools + 1] = pool
    return pool
  end

  --- A pool whose one worker has no place but `free` left until the gate is open: what is called
  -- meanwhile runs in the host.
  local function held(options, free)
    options = options or {}
    options.threads = 1
    local pool, gate = open(options), helpers.new_path()
    local count = (options.concurrency or 1) - (free or 0)
    for _ = 1, count do
      pool:run(function(path) require("tasks").hold(path) end, { gate }, { worker = 1 })
    end
    helpers.poll_until(function() return #helpers.lines(gate .. ".entered") == count end)
    return pool, gate
  end

  local function kind_of(f)
    local ok, err = f:pawait()
    return ok and "ok" or err.kind
  end

  setup(function()
    done = helpers.watch()
  end)

  after_each(function()
    for i, pool in ipairs(pools) do
      pool:terminate()
      pool:close()
      pools[i] = nil
    end
  end)

  teardown(function()
    done()
    helpers.clean()
  end)

  it("runs queued jobs in the host while it awaits, in their order", function()
    local pool = held()
    local log, list = helpers.new_path(), {}
    _G.inline_place = "host"
    for i = 1, 20 do
      list[i] = pool.call.note(log, tostring(i))
    end
    local place = pool.call.get_global("inline_place")
    assert.equal("host", place:await())
    _G.inline_place = nil
    for i = 1, 20 do
      assert.equal(tostring(i), list[i]:await())
      assert.equal(tostring(i), helpers.lines(log)[i])
    end
    assert.is_nil(treadle.worker)
  end)

  it("does not run them while it only polls, sleeps or waits with a time limit", function()
    local pool, gate = held()
    local f = pool.call.add(1, 1)
    for _ = 1, 100 do
      treadle.poll()
    end
    treadle.sleep(0.005)
    assert.is_false(f:wait(0.005))
    assert.equal("pending", f:state())
    helpers.write(gate, "open")
    assert.is_true(f:wait(helpers.TIMEOUT))
  end)

  it("runs them when a coroutine awaits, too", function()
    local pool = held()
    assert.equal(3, treadle.run(function()
      return pool.call.add(1, 2):await()
    end))
  end)

  it("loads the module when it runs the first job, not before", function()
    helpers.module("inline_module", [[
      INLINE_LOADED = true
      local treadle = require "treadle"
      local tasks = require "tasks"
      return { where = function() return treadle.is_main end, hold = tasks.hold }
    ]])
    local pool = open({ threads = 1 }, "inline_module")
    assert.is_nil(_G.INLINE_LOADED)
    local gate = helpers.new_path()
    pool.call.hold(gate)
    helpers.poll_until(function() return #helpers.lines(gate .. ".entered") == 1 end)
    assert.is_true(pool.call.where():await())
    assert.is_true(_G.INLINE_LOADED)
    _G.INLINE_LOADED = nil
    helpers.write(gate, "open")
  end)

  it("takes the functions of a table from the host", function()
    local out, err, code = helpers.child("luajit", [[
      local treadle = require "treadle"
      local count = 0
      local tasks = {
        tick = function() count = count + 1 return count, treadle.is_main end,
        hold = treadle.import { module = "tasks", name = "hold" },
        upper = treadle.import { module = "string", name = "upper" },
        twice = treadle.task { fn = function(x) return 2 * x end, priority = "low" },
      }
      if treadle.is_main then
        local pool = treadle.pool(tasks, { threads = 1, inline = true })
        local gate = os.tmpname()
        os.remove(gate)
        local held = pool:run("hold", { gate }, { worker = 1 })
        require("helpers").poll_until(function()
          return #require("helpers").lines(gate .. ".entered") == 1
        end)
        print(pool.call.tick():await())
        print(pool.call.tick():await())
        print(count, pool.call.upper("x"):await(), pool.call.twice(21):await())
        io.open(gate, "w"):close()
        held:wait()
        os.remove(gate)
        os.remove(gate .. ".entered")
        pool:close()
      end
      return tasks
    ]])
    assert.same({ "1\ttrue\n2\ttrue\n2\tX\t42\n", "", 0 }, { out, err, code })
  end)

  it("copies what goes in and out, as a worker does", function()
    local pool = held()
    local given = { 1, { 2 } }
    given.self = given
    local got = pool.call.echo(given):await()
    assert.are_not.equal(given, got)
    assert.equal(got, got.self)
    local upvalue = { 1 }
    assert.equal(2, pool:run(function() upvalue[1] = upvalue[1] + 1 return upvalue[1] end):await())
    assert.equal(1, upvalue[1])
    assert.equal(4, select("#", pool.call.echo(nil, 1, nil, nil):await()))
    local ok, err = pool:run(function() return coroutine.create(print) end):pawait()
    assert.is_false(ok)
    assert.equal("payload", err.kind)
    assert.matches("results[1]", err.message, 1, true)
  end)

  it("rejects with errors as a worker does, of no worker", function()
    local pool = held()
    local ok, err = pool.call.boom("oh"):pawait()
    assert.is_false(ok)
    assert.equal("task", err.kind)
    assert.equal("boom", err.task)
    assert.is_nil(err.worker)
    assert.matches("oh", err.message, 1, true)
    assert.matches("tasks.lua", err.traceback, 1, true)
    assert.equal(7, select(2, pool.call.boom({ code = 7 }):pawait()).value.code)
    assert.equal("task", kind_of(pool.call.boom(nil)))
    assert.matches("nobody would resume it",
      select(2, pool:run(function() coroutine.yield() end):pawait()).message, 1, true)
  end)

  it("rejects with kind 'load' what it cannot load", function()
    helpers.module("inline_broken", [[
      if require("treadle").is_main then error("not in the host") end
      return { hold = require("tasks").hold, f = function() end }
    ]])
    local pool = open({ threads = 1 }, "inline_broken")
    local gate = helpers.new_path()
    pool:run("hold", { gate }, { worker = 1 })
    helpers.poll_until(function() return #helpers.lines(gate .. ".entered") == 1 end)
    local ok, err = pool.call.f():pawait()
    assert.is_false(ok)
    assert.equal("load", err.kind)
    assert.matches("not in the host", err.message, 1, true)
    helpers.write(gate, "open")
  end)

  it("keeps timeouts: in the queue, while a task waits, while it computes", function()
    local pool = held()
    local never = helpers.new_path()
    local late = pool:run("note", { never, "ran" }, { timeout = 0 })
    assert.equal("timeout", kind_of(pool.call.strict(1000)))
    assert.equal("late", pool.call.slow(1000):await())
    assert.equal("timeout", kind_of(late))
    assert.equal("", helpers.read(never))
    assert.equal("timeout", kind_of(pool:run(function()
      local stop = require("treadle").now() + 0.02
      repeat until require("treadle").now() > stop
    end, {}, { timeout = 0.001 })))
  end)

  it("cancels: what is queued never runs, what waits is woken", function()
    local pool = held({ concurrency = 3 })
    local log = helpers.new_path()
    local running = pool.call.until_cancelled(log, "sleep")
    assert.equal(2, pool.call.add(1, 1):await()) -- behind it
    assert.equal(1, #helpers.lines(log))
    running:cancel()
    helpers.poll_until(function() return #helpers.lines(log) == 2 end)
    assert.equal("false cancelled true", helpers.lines(log)[2])
    local queued = pool.call.note(log, "never")
    queued:cancel()
    assert.equal(2, pool.call.add(1, 1):await())
    assert.equal(2, #helpers.lines(log))
  end)

  it("runs as many at once as a worker would", function()
    for concurrency = 1, 3 do
      local pool, gate = held({ concurrency = concurrency })
      local second, list, most = helpers.new_path(), {}, nil
      for i = 1, concurrency + 3 do
        list[i] = pool.call.hold(second)
      end
      treadle.spawn(function()
        repeat
          treadle.sleep(0.001)
          most = #helpers.lines(second .. ".entered")
        until most >= concurrency
        treadle.sleep(0.005)
        most = #helpers.lines(second .. ".entered")
        helpers.write(second, "open")
      end)
      treadle.all(list):await()
      assert.equal(concurrency, most)
      helpers.write(gate, "open")
    end
  end)

  for _, threads in ipairs { 1, 2, 8 } do
    it(("runs nested calls, with %d workers"):format(threads), function()
      local pool = open { threads = threads }
      local list = {}
      for i = 1, 200 do -- what they call runs in the workers, and here
        list[i] = pool:run("sum_all", { i % 5 }, { worker = i % threads + 1 })
      end
      for i, sum in ipairs(treadle.all(list):await()) do
        local n = i % 5
        assert.equal(n * (n + 1) / 2, sum)
      end
      assert.is_true(pool:drained():wait(helpers.TIMEOUT))
    end)

    it(("answers every call once, with %d workers"):format(threads), function()
      local pool = open { threads = threads }
      local list = {}
      for i = 1, 5000 do
        list[i] = pool.call.echo(i, { i })
      end
      for i, f in ipairs(list) do
        local a, b = f:await()
        assert.equal(i, a)
        assert.equal(i, b[1])
      end
    end)
  end

  it("lets a task in the host call its pool", function()
    local pool = held()
    _G.INLINE_POOL = pool
    local inner = pool:run(function() return _G.INLINE_POOL.call.add(20, 22):await() end)
    assert.equal(42, inner:await())
    _G.INLINE_POOL = nil
  end)

  describe("lets go with a task in the host", function()
    local pool, other, log

    --- The task, which runs in the host, waits for a call on another pool.
    local function begin(options)
      pool, log = held({ concurrency = 2 }), helpers.new_path()
      other = treadle.pool("kin", { threads = 1 })
      pools[#pools + 1] = other
      _G.INLINE_OTHER = other
      local f = pool:run(function(path)
        local call = _G.INLINE_OTHER.call.leaf(path)
        local ok, err = call:pawait()
        require("kin").note(path, ("task %s %s"):format(tostring(ok), err.kind))
        return "late"
      end, { log }, options)
      assert.equal(2, pool.call.add(1, 1):await()) -- f runs, in the host
      _G.INLINE_OTHER = nil
      return f
    end

    local function leaf_says(text)
      local all
      helpers.poll_until(function()
        all = helpers.lines(log)
        return #all >= 2 and table.concat(all, "\n"):find(text, 1, true)
      end, text)
    end

    for _, force in ipairs { false, true } do
      it("the calls that it made, when it is cancelled, force: " .. tostring(force), function()
        local f = begin()
        helpers.poll_until(function() return #helpers.lines(log) == 1 end)
        f:cancel { reason = "not needed", force = force }
        assert.equal("cancelled", kind_of(f))
        leaf_says("leaf cancelled: not needed")
        assert.equal("ok", kind_of(other.call.after()))
      end)
    end

    it("the calls that it made, when its time is over", function()
      helpers.with_limit(function(seconds)
        assert.equal("timeout", kind_of(begin { timeout = seconds }))
        return #helpers.lines(log) > 0
      end)
      leaf_says("leaf cancelled: the time for the call is over")
    end)

    it("the calls that it made, when its pool is terminated", function()
      local f = begin()
      helpers.poll_until(function() return #helpers.lines(log) == 1 end)
      pool:terminate("enough")
      assert.equal("closed", kind_of(f))
      leaf_says("leaf cancelled: ")
    end)
  end)

  it("gives calls of a task in the host no more time than the task has", function()
    local pool = held({ concurrency = 2 })
    local other = treadle.pool("tasks", { threads = 1 })
    pools[#pools + 1] = other
    _G.INLINE_OTHER = other
    local gate, begun, seen = helpers.new_path(), false, nil
    _G.INLINE_BEGUN = function() begun = true end
    _G.INLINE_SEEN = function(...) seen = { ... } end
    local function outlast(path)
      local own = _G.INLINE_OTHER
      _G.INLINE_BEGUN()
      local call = own:run("block", { path }, { timeout = 1000, default = "its own" })
      while call:state() == "pending" do -- as far as the host sees
        require("helpers").pause()
      end
      local ok, err = call:pawait()
      _G.INLINE_SEEN(ok, err.kind, err.message)
    end
    helpers.with_limit(function(seconds)
      assert.equal("timeout", kind_of(pool:run(outlast, { gate }, { timeout = seconds })))
      return begun
    end)
    helpers.poll_until(function() return seen end)
    assert.same({ false, "timeout" }, { seen[1], seen[2] })
    _G.INLINE_OTHER, _G.INLINE_BEGUN, _G.INLINE_SEEN = nil, nil, nil
    assert.equal(2, other.call.add(1, 1):await()) -- what computed has been stopped
  end)

  it("leaves the calls alone of a task that ended in the host", function()
    local pool, gate = held({ concurrency = 2 })
    _G.INLINE_POOL = pool
    local log = helpers.new_path()
    local left
    _G.INLINE_LEFT = function(f) left = f end
    local f = pool:run(function(path) _G.INLINE_LEFT(_G.INLINE_POOL.call.note(path, "done")) end,
      { log })
    assert.equal(2, pool.call.add(1, 1):await())
    assert.equal("ok", kind_of(f))
    f:cancel()
    helpers.write(gate, "open")
    assert.equal("done", left:await())
    _G.INLINE_POOL, _G.INLINE_LEFT = nil, nil
  end)

  it("finishes what the host runs before it closes, and lets it call meanwhile", function()
    local pool, gate = held({ concurrency = 2 })
    local second = helpers.new_path()
    _G.INLINE_POOL = pool
    local f = pool:run(function(path)
      require("tasks").hold(path)
      return _G.INLINE_POOL.call.add(20, 22):await()
    end, { second })
    assert.equal(2, pool.call.add(1, 1):await()) -- f runs, in the host
    assert.equal(1, #helpers.lines(second .. ".entered"))
    local closing = treadle.spawn(function() pool:close() end)
    assert.equal("closed", kind_of(pool.call.add(1, 1)))
    helpers.write(gate, "open")
    helpers.write(second, "open")
    assert.equal(42, f:await())
    _G.INLINE_POOL = nil
    assert.is_true(closing:wait(helpers.TIMEOUT))
  end)

  it("gives up what the host runs when it is terminated", function()
    local pool, gate = held({ concurrency = 2 })
    local log = helpers.new_path()
    local f = pool.call.until_cancelled(log, "sleep")
    assert.equal(2, pool.call.add(1, 1):await())
    pool:terminate("enough")
    local _, err = f:pawait()
    assert.equal("closed", err.kind)
    assert.equal("enough", err.message)
    helpers.poll_until(function() return #helpers.lines(log) == 2 end)
    helpers.write(gate, "open")
  end)

  it("wakes a task that waits in the host when the worker that called it gives it up", function()
    local pool, gate = held({ concurrency = 2 }, 1)
    local log = helpers.new_path()
    local caller = pool:run(function(path)
      local own = require("treadle").worker.pool
      local call = own.call.until_cancelled(path, "sleep")
      while #require("helpers").lines(path) == 0 do -- until the host runs it
        require("helpers").pause()
      end
      call:cancel()
      return "gave it up"
    end, { log }, { worker = 1 })
    assert.equal("gave it up", caller:await())
    helpers.poll_until(function() return #helpers.lines(log) == 2 end)
    assert.equal("false cancelled true", helpers.lines(log)[2])
    helpers.write(gate, "open")
  end)

  it("counts what the host runs like all else", function()
    local pool = held()
    for i = 1, 10 do
      assert.equal(i, pool.call.add(i, 0):await())
    end
    assert.equal("task", kind_of(pool.call.boom("x")))
    local waits = pool.call.sleep(1000)
    assert.equal("timeout", kind_of(pool.call.strict(1000)))
    waits:cancel()
    local s = pool:stats()
    assert.equal(14, s.submitted)
    assert.equal(s.submitted, s.queued + s.running + s.done + s.failed + s.cancelled)
    assert.same({ 10, 2, 1, 1, 0 }, { s.done, s.failed, s.cancelled, s.running, s.queued })
    assert.equal(10, s.tasks.add.runs)
    assert.equal(1, s.tasks.boom.failures)
  end)

  it("can be left to the end of the process at any moment", function()
    for _, program in ipairs { "luajit", "treadle" } do
      for _, ending in ipairs { "", "pool:terminate()", "pool:close(0.1)", "pool = nil "
        .. "collectgarbage()", "os.exit(0, true)" } do
        local out, err, code = helpers.child(program, [[
          local treadle = require "treadle"
          local pool = treadle.pool("tasks", { threads = 1, inline = true, concurrency = 4 })
          for i = 1, 10 do pool:run(treadle.sleep, { 0.05 }) end
          for i = 1, 10 do pool.call.add(i, i) end
          print(pool:run(function() return "ran" end):await())
          ]] .. ending)
        assert.same({ "ran\n", "", 0 }, { out, err, code }, program .. ": " .. ending)
      end
    end
  end)

  it("is refused where tasks would miss their init", function()
    assert.matches("option 'inline' lets tasks run in the host, where 'init' does not run",
      helpers.error_here(function() treadle.pool("tasks", { inline = true, init = "id" }) end),
      1, true)
    assert.matches("option 'inline': a boolean expected, got number",
      helpers.error_here(function() treadle.pool("tasks", { inline = "yes" }) end):gsub("string",
        "number"), 1, true)
  end)
end)
