package.path = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/support/?.lua;"
  .. package.path
local helpers = require "helpers"
local treadle = require "treadle"
local processes = require "processes"
local ffi = require "ffi"
require "process_tasks" -- its class

pcall(ffi.cdef, "int poll(void *, unsigned long, int);")

--- A pool of processes whose modules are these specs'.
local function open(options, module)
  local o = { runtime = "process", threads = 1, permissions = "unrestricted" }
  for name, value in pairs(options or {}) do
    o[name] = value
  end
  return treadle.pool(module or "process_tasks", o)
end

--- The counts add up.
local function adds_up(pool)
  local s = pool:stats()
  return s.queued + s.running + s.done + s.failed + s.cancelled == s.submitted
end

describe("a pool of processes", function()
  local done = processes.watch()

  after_each(function()
    done()
  end)

  teardown(function()
    helpers.clean()
  end)

  describe("calls", function()
    it("run in other processes, one for each worker", function()
      local pool = open { threads = 2 }
      local pids = pool:broadcast("pid"):await()
      assert.are_not.equal(pids[1], pids[2])
      assert.are_not.equal(pids[1], processes.own())
      assert.same({ 1, 2 }, pool:broadcast("id"):await())
      pool:close()
    end)

    it("bring back what a thread would", function()
      local pool = open()
      local a, b, c, d = pool.call.echo(nil, "x\0y", { 1, { 2 } }, nil):await()
      assert.same({ nil, "x\0y", { 1, { 2 } }, nil }, { a, b, c, d })
      assert.equal(4, select("#", pool.call.echo(nil, 1, nil, nil):await()))
      pool:close()
    end)

    it("come back by the hundred thousand", function()
      local pool = open { threads = 2 }
      for round = 1, 20 do
        local list = {}
        for i = 1, 5000 do
          list[i] = pool.call.echo(round * 10000 + i)
        end
        for i, v in ipairs(treadle.all(list):await()) do
          assert(v == round * 10000 + i)
        end
      end
      assert.is_true(adds_up(pool))
      pool:close()
    end)

    it("fail with what the task has raised, and the traceback of its process", function()
      local pool = open { name = "crew" }
      local ok, err = pool.call.boom({ code = 7 }):pawait()
      assert.is_false(ok)
      assert.same({ code = 7 }, err.value)
      ok, err = pool.call.boom("no luck"):pawait()
      assert.is_false(ok)
      assert.equal("task", err.kind)
      assert.matches("no luck", err.message)
      assert.matches("process_tasks.lua", err.traceback)
      assert.equal("boom", err.task)
      pool:close()
    end)

    it("are left by Ctrl-C while a plain luajit waits for them", function()
      local ready = helpers.new_path()
      local script = helpers.write(helpers.new_path(".lua"), ([[
        local treadle = require "treadle"
        local pool = treadle.pool("tasks", { threads = 1, runtime = "process" })
        pool.call.echo(1):await()
        treadle.spawn(function()
          treadle.sleep(0.05) -- to be well inside
          io.open(%q, "w"):close()
        end)
        pool.call.sleep(1000):await()
      ]]):format(ready))
      local out, err, code = helpers.shell(([[
        env --default-signal=INT luajit %s &
        pid=$!
        while [ ! -e %s ]; do sleep 0.01; done
        kill -INT $pid
        wait $pid
      ]]):format(helpers.quote(script), helpers.quote(ready)))
      assert.same({ "", 1 }, { out, code })
      assert.matches("interrupted!", err, 1, true)
    end)

    it("have data, init and teardown", function()
      local log = helpers.new_path()
      helpers.module("crew_of_one", ([[
        local tasks = require "process_tasks"
        local M = { data = tasks.data }
        function M.init() tasks.note(%q, "init") end
        function M.teardown() tasks.note(%q, "teardown") end
        return M
      ]]):format(log, log))
      local pool = open({ data = { 1, "two" }, init = "init", teardown = "teardown" },
        "crew_of_one")
      assert.same({ 1, "two" }, pool.call.data():await())
      pool:close()
      assert.same({ "init", "teardown" }, helpers.lines(log))
    end)

    it("of functions that travel, and of tasks in a table, run there", function()
      local pool, n = open(), 20
      assert.equal(42, pool:run(function(k) return n + k end, { 22 }):await())
      pool:close()
      local out, err, code = helpers.child("treadle", [[
        local treadle = require "treadle"
        local ffi = require "ffi"
        ffi.cdef "int getpid(void)"
        local tasks = { pid = function() return ffi.C.getpid() end }
        if treadle.is_main then
          local pool = treadle.pool(tasks, { threads = 1, runtime = "process",
            permissions = "unrestricted" })
          print(pool.call.pid():await() ~= ffi.C.getpid())
          pool:close()
        end
        return tasks
      ]])
      assert.same({ "true\n", "", 0 }, { out, err, code })
    end)

    it("call their own pool, and pools of their own", function()
      local pool = open { concurrency = 2 }
      assert.equal(55, pool.call.fib(10):await())
      assert.same({ 210, true }, { pool.call.nested("thread", 20):await() })
      assert.same({ 210, false }, { pool.call.nested("process", 20):await() })
      pool:close()
    end)

    it("use luv", function()
      local pool = open()
      assert.equal(5, pool.call.with_luv(5):await())
      assert.equal("after", pool.call.echo("after"):await())
      pool:close()
    end)

    it("carry payloads of any length up to max_payload", function()
      local pool = open()
      for _, n in ipairs { 0, 1, 32767, 32768, 32769, 262144, 2 ^ 20, 63 * 2 ^ 20 } do
        local text = ("x"):rep(n)
        assert.equal(n, pool.call.size(text):await())
        assert(pool.call.echo(text):await() == text, n)
      end
      local ok, err = pool.call.size(("x"):rep(64 * 2 ^ 20)):pawait()
      assert.same({ false, "payload" }, { ok, err.kind })
      assert.equal(1, pool.call.echo(1):await())
      pool:close()
    end)

    it("run while the host computes", function()
      local pool, log = open { threads = 2, concurrency = 4 }, helpers.new_path()
      local list = {}
      for i = 1, 8 do
        list[i] = pool.call.note(log, tostring(i))
      end
      helpers.eventually(function() return #helpers.lines(log) == 8 end, "all have run")
      treadle.all(list):await()
      pool:close()
    end)

    it("come home by treadle.poll, and by a loop around treadle.fd", function()
      local pool = open()
      local f = pool.call.echo(1)
      helpers.poll_until(function() return f:state() == "resolved" end)
      local fds = ffi.new("struct { int fd; short events, revents; }[1]")
      fds[0].fd, fds[0].events = treadle.fd(), 1
      f = pool.call.echo(2)
      treadle.poll()
      while f:state() == "pending" do
        local wait = treadle.next_timeout()
        ffi.C.poll(fds, 1, wait and math.ceil(wait * 1000) or 1000 * helpers.TIMEOUT)
        treadle.poll()
      end
      assert.equal(2, f:await())
      pool:close()
    end)

    it("go by key, priority and balancer", function()
      for _, balancer in ipairs { "shared", "round_robin", "least_busy", "random" } do
        local pool = open { threads = 2, balancer = balancer }
        local first = pool:run("pid", {}, { key = "k" }):await()
        for _ = 1, 20 do
          assert.equal(first, pool:run("pid", {}, { key = "k" }):await())
        end
        pool:close()
      end
      local pool = open()
      local gate, log, list = helpers.new_path(), helpers.new_path(), {}
      list[1] = pool:run("hold", { gate })
      helpers.entered(gate .. ".entered")
      for _, priority in ipairs { "low", "normal", "high" } do
        list[#list + 1] = pool:run("note", { log, priority }, { priority = priority })
      end
      helpers.write(gate, "open")
      treadle.all(list):await()
      assert.same({ "high", "normal", "low" }, helpers.lines(log))
      pool:close()
    end)
  end)

  describe("stops", function()
    --- How a call ends: its kind, and whether its process is the same afterwards.
    local function ends(pool, f)
      local ok, err = f:pawait()
      assert.is_false(ok)
      assert.is_number(pool.call.pid():await())
      return err.kind
    end

    for _, how in ipairs { "nap", "compute", "stuck" } do
      it("a task at its deadline: " .. how, function()
        local pool = open()
        helpers.with_limit(function(seconds)
          local log = helpers.new_path()
          local f = pool:run(how, { log }, { timeout = seconds })
          assert.equal("timeout", ends(pool, f))
          return #helpers.lines(log) == 1
        end)
        assert.is_true(adds_up(pool))
        pool:close()
      end)

      it("one that is cancelled by force: " .. how, function()
        local pool, log = open(), helpers.new_path()
        local f = pool:run(how, { log })
        helpers.entered(log)
        f:cancel { force = true }
        assert.equal("cancelled", ends(pool, f))
        pool:close()
      end)

      it("all of them when the pool is terminated: " .. how, function()
        local pool, log = open { threads = 2 }, helpers.new_path()
        local a, b, c = pool:run(how, { log }), pool:run(how, { log }), pool.call.echo(1)
        helpers.entered(log, 2)
        pool:terminate()
        for _, f in ipairs { a, b, c } do
          assert.equal("closed", select(2, f:pawait()).kind)
        end
      end)

      it("a closing pool after its time: " .. how, function()
        local pool, log = open(), helpers.new_path()
        local f = pool:run(how, { log })
        helpers.entered(log)
        pool:close(0.01)
        assert.equal("closed", select(2, f:pawait()).kind)
      end)
    end

    it("a process that is stopped, at its job's deadline", function()
      local pool = open()
      helpers.with_limit(function(seconds)
        local log = helpers.new_path()
        local f = pool:run("die", { "STOP", log }, { timeout = seconds })
        assert.equal("timeout", ends(pool, f))
        return #helpers.lines(log) == 1
      end)
      pool:close()
    end)

    it("a wait that is cancelled, in the state that goes on", function()
      local pool, log = open(), helpers.new_path()
      assert.equal(1, pool.call.age():await())
      local f = pool.call.nap(log)
      helpers.entered(log)
      f:cancel("enough")
      assert.equal("cancelled", select(2, f:pawait()).kind)
      assert.equal(2, pool.call.age():await())
      pool:close()
    end)

    it("who asks for too much memory, alone", function()
      local pool = open { max_memory = 32e6 }
      local ok, err = pool.call.hog():pawait()
      assert.same({ false, "memory" }, { ok, err.kind })
      assert.equal(1, pool.call.echo(1):await())
      pool:close()
    end)
  end)

  describe("has a size and states", function()
    it("that recycle, isolate and resize", function()
      local pool = open { isolate = true }
      assert.same({ 1, 1 }, { pool.call.age():await(), pool.call.age():await() })
      pool:close()
      pool = open()
      local pid = pool.call.pid():await()
      local gate = helpers.new_path()
      local held = pool.call.hold(gate, "held")
      helpers.entered(gate .. ".entered")
      local recycled = pool:recycle()
      local next_pid = pool.call.pid()
      helpers.write(gate, "open")
      assert.equal("held", held:await())
      recycled:await()
      assert.are_not.equal(pid, next_pid:await())
      pool:resize(3)
      assert.same({ 1, 2, 3 }, pool:broadcast("id"):await())
      pool:resize(1)
      helpers.poll_until(function() return #processes.children() == 1 end)
      assert.equal(1, pool.call.echo(1):await())
      pool:close()
    end)

    it("that grow and shrink by themselves", function()
      local pool = treadle.pool("process_tasks", { runtime = "process", min_threads = 1,
        max_threads = 3, idle_timeout = 0.01, permissions = "unrestricted" })
      local log, list = helpers.new_path(), {}
      for i = 1, 3 do
        list[i] = pool.call.nap(log, 1000)
      end
      helpers.entered(log, 3)
      for _, f in ipairs(list) do
        f:cancel()
      end
      helpers.poll_until(function() return #processes.children() == 1 end)
      pool:close()
    end)
  end)

  describe("loses a process", function()
    --- The call rejects as crashed, with that in its message; another process goes on.
    local function crashes(text, name, ...)
      local pool = open { threads = 2 }
      local ok, err = pool.call[name](...):pawait()
      assert.is_false(ok)
      assert.equal("crashed", err.kind)
      assert.matches(text, tostring(err))
      assert.same({ 1, 2 }, pool:broadcast("id"):await())
      assert.is_true(adds_up(pool))
      pool:close()
    end

    it("that is killed, and says by what", function()
      crashes("worker %d was killed by signal 9, SIGKILL", "die", "KILL")
      crashes("SIGTERM", "die", "TERM")
    end)

    it("that touches what is not there", function()
      crashes("SIGSEGV", "crash")
    end)

    it("that exits in C", function()
      crashes("exited with status 3", "c_exit", 3)
    end)

    it("that closes its descriptors", function() -- or finds that out itself
      crashes("worker %d %a+ %a+", "close_descriptors")
    end)

    it("and not by os.exit, which ends the task", function()
      local pool = open()
      local pid = pool.call.pid():await()
      assert.equal("task", select(2, pool.call.lua_exit(3):pawait()).kind)
      assert.equal(pid, pool.call.pid():await())
      pool:close()
    end)

    it("which takes along what it runs, and nothing else", function()
      local pool, log = open { threads = 2, concurrency = 2 }, helpers.new_path()
      local gate = helpers.new_path()
      local mate = pool:run("nap", { log }, { worker = 1 })
      local other = pool:run("hold", { gate, "other" }, { worker = 2 })
      helpers.entered(log)
      helpers.entered(gate .. ".entered")
      assert.equal("crashed", select(2, pool:run("die", { "KILL" }, { worker = 1 }):pawait()).kind)
      assert.equal("crashed", select(2, mate:pawait()).kind)
      assert.equal("pending", other:state())
      helpers.write(gate, "open")
      assert.equal("other", other:await())
      pool:close()
    end)

    it("and makes the call again only as often as retries say", function()
      local pool, log = open(), helpers.new_path()
      local ok, err = pool:run("die", { "KILL", log }, { retries = 2 }):pawait()
      assert.same({ false, "crashed" }, { ok, err.kind })
      assert.equal(3, #helpers.lines(log))
      log = helpers.new_path()
      pool.call.die("KILL", log):pawait()
      assert.equal(1, #helpers.lines(log))
      pool:close()
    end)

    it("while it decodes a call, which is not made again", function()
      local pool, log = open(), helpers.new_path()
      local value = pool:run("poison", { log }) -- comes home, and is made here
      local ok, err = pool.call.echo(value:await()):pawait()
      assert.same({ false, "crashed" }, { ok, err and err.kind })
      assert.equal(2, #helpers.lines(log))
      assert.equal(1, pool.call.echo(1):await())
      pool:close()
    end)

    it("while it loads, three times in a row, and closes with that", function()
      local log = helpers.new_path()
      helpers.module("crashing_module", ([[
        require("process_tasks").note(%q)
        require("process_tasks").crash()
      ]]):format(log))
      local ok, err = pcall(open, nil, "crashing_module")
      assert.is_false(ok)
      assert.matches("SIGSEGV", tostring(err))
      assert.matches("while it was loading", tostring(err))
      assert.is_true(#helpers.lines(log) >= 1 and #helpers.lines(log) <= 3)
    end)

    for name, ahead in pairs { ["in the queue"] = false, ["ahead of it"] = true } do
      it("at random, and accounts for each call " .. name, function()
        local seed = tonumber(os.getenv("TDL_SEED")) or os.time()
        math.randomseed(seed)
        local ok, err = pcall(require "kills", 4000, 20, ahead)
        assert(ok, ("%s (TDL_SEED=%d)"):format(tostring(err), seed))
      end)
    end

    it("that attacks it by the memory, the line and the bell", function()
      local seed = tonumber(os.getenv("TDL_SEED")) or os.time()
      math.randomseed(seed)
      local ok, err = pcall(require "hostile", 20)
      assert(ok, ("%s (TDL_SEED=%d)"):format(tostring(err), seed))
    end)

    it("and tells so", function()
      local pool, heard = open(), {}
      pool:on("worker_exit", function(e)
        heard[#heard + 1] = { e.worker, e.reason }
      end)
      pool.call.die("KILL"):pawait()
      pool.call.echo(1):await()
      assert.same({ { 1, "crashed" } }, heard)
      processes.kill(pool.call.pid():await(), 9) -- idle
      helpers.poll_until(function() return #heard == 2 end, "the end of an idle worker")
      assert.same({ 1, "crashed" }, heard[2])
      pool:close()
    end)
  end)

  describe("is started", function()
    it("by the command that comes before", function()
      local pool = open { command = { "nice", "-n", "5" } }
      local here = ffi.C.nice(0)
      assert.equal(math.min(19, here + 5), pool.call.niceness():await())
      pool:close()
    end)

    it("not by one that is not there, and says so", function()
      local ok, err = pcall(open, { command = { "/nowhere/at all" } })
      assert.is_false(ok)
      assert.matches("/nowhere/at all", tostring(err))
      ok, err = pcall(open, { command = { "false" } })
      assert.is_false(ok)
      assert.matches("exited with status 1", tostring(err))
    end)

    it("and prints whole lines", function()
      local out, err, code = helpers.child("treadle", [[
        local treadle = require "treadle"
        local pool = treadle.pool("process_tasks", { threads = 2, runtime = "process",
          permissions = "unrestricted" })
        local list = {}
        for i = 1, 100 do list[i] = pool.call.print(("line"):rep(20)) end
        treadle.all(list):await()
        pool:close()
      ]])
      assert.equal(0, code)
      local _, n = out:gsub(("line"):rep(20) .. "\n", "")
      assert.same({ 100, 8100 }, { n, #out })
      _, n = err:gsub(("line"):rep(20), "")
      assert.equal(100, n)
    end)
  end)

  it("closes although its processes are stopped", function()
    local pool = open { threads = 2, terminate_timeout = 0.2 }
    for _, pid in ipairs(pool:broadcast("pid"):await()) do
      processes.kill(pid, 19)
    end
    assert.is_true(treadle.spawn(function() pool:close() end):wait(helpers.TIMEOUT))
  end)

  describe("dies with its host", function()
    for name, case in pairs {
      ["at work"] = { task = "compute" },
      ["asleep"] = { task = "nap" },
      ["stuck in C"] = { task = "stuck" },
      ["stopped"] = { task = "nap", stop = true },
      ["behind a command"] = { task = "compute", command = '{ "nice", "-n", "1" }' },
      ["behind a shell"] = { task = "nap", command = [[{ "sh", "-c", '"$@"; true', "sh" }]] },
      ["behind a command, stopped"] = {
        task = "nap", stop = true, command = '{ "nice", "-n", "1" }',
      },
    } do
      it(name, function()
        local log = helpers.new_path()
        local script = helpers.write(helpers.new_path(".lua"), ([[
          local treadle = require "treadle"
          local pool = treadle.pool("process_tasks", { threads = 2, runtime = "process",
            command = %s, concurrency = 2, permissions = "unrestricted" })
          for _, pid in ipairs(pool:broadcast("pid"):await()) do
            io.write(pid, "\n")
          end
          io.flush()
          pool:broadcast(%q, %q)
          treadle.sleep(1000)
        ]]):format(case.command or "nil", case.task, log))
        local host = processes.start("treadle", script)
        local pids = { host.read_number(), host.read_number() }
        helpers.eventually(function() return #helpers.lines(log) == 2 end, "they run")
        if case.stop then
          for _, pid in ipairs(pids) do
            processes.kill(pid, 19)
          end
        end
        host.kill()
        local dead = treadle.now()
        helpers.eventually(function()
          return not (processes.lives(pids[1]) or processes.lives(pids[2]))
        end, "no worker lives on")
        local survived = treadle.now() - dead
        assert(survived < 1, ("a worker lived on for %.2f s"):format(survived))
      end)
    end
  end)
end)
