--- The ends of pools and processes: closing, terminating, dropping, exits with calls in flight.
local helpers = require "helpers"
local treadle = require "treadle"

local IN_FLIGHT = 10000

describe("the end of a pool", function()
  local done

  setup(function()
    done = helpers.watch()
  end)

  teardown(helpers.clean)

  local function entered(gate)
    return #helpers.lines(gate .. ".entered")
  end

  describe("close", function()
    --- Leaves a pool behind with a call on it, and a coroutine that waits and calls again.
    local function leave(task, ...)
      local t = require "treadle"
      local args = { ... }
      _G.left = t.pool("stop_tasks", { threads = 1 })
      t.spawn(function()
        while _G.left do
          _G.left:run(task, args):pawait()
        end
      end)
    end

    for what, call in pairs {
      ["computes on #computing"] = { "loop", "empty" }, ["waits"] = { "nap" },
      ["is made again and again"] = { "echo" },
    } do
      it("does not wait for ever for a call on a pool that a task has left: it " .. what, function()
        local pool = treadle.pool("tasks", { threads = 2, terminate_timeout = 0.05 })
        pool:run(leave, call):await()
        local closing = treadle.spawn(function() pool:close() end)
        assert.is_true(closing:wait(helpers.TIMEOUT))
      end)
    end

    it("waits for a while for a call on a pool that a task has left", function()
      local pool = treadle.pool("tasks", { threads = 1, terminate_timeout = helpers.TIMEOUT })
      local gate, log = helpers.new_path(), helpers.new_path()
      pool:run(function(path, notes)
        _G.left = require("treadle").pool("tasks", { threads = 1 })
        _G.left.call.hold(path, "left"):and_then(function(text)
          require("tasks").note(notes, text)
        end)
      end, { gate, log }):await()
      helpers.poll_until(function() return entered(gate) == 1 end)
      assert.is_true(pool:drained():wait(helpers.TIMEOUT)) -- that is not the pool's own
      local closing = treadle.spawn(function() pool:close() end)
      assert.is_false(closing:wait(0.01))
      helpers.write(gate, "open")
      assert.is_true(closing:wait(helpers.TIMEOUT))
      assert.same({ "left" }, helpers.lines(log))
    end)

    it("finishes what was accepted", function()
      local pool = treadle.pool("tasks", { threads = 2 })
      local list = {}
      for i = 1, 1000 do
        list[i] = pool.call.add(i, 1)
      end
      pool:close()
      for i = 1, 1000 do
        assert.equal("resolved", list[i]:state())
        assert.equal(i + 1, list[i]:await())
      end
    end)

    it("ends the threads before it returns", function()
      local before = helpers.threads()
      local pool = treadle.pool("tasks", { threads = 4 })
      assert.is_true(helpers.threads() >= before + 4)
      pool:close()
      helpers.eventually(function() return helpers.threads() <= before end)
    end)

    it("is idempotent", function()
      local pool = treadle.pool("tasks", { threads = 1 })
      pool:close()
      pool:close()
      pool:close(0)
      pool:terminate()
    end)

    it("may come within a call, while its arguments are encoded", function()
      local pool = treadle.pool("tasks", { threads = 1 })
      local closing = setmetatable({}, { __treadle_pack = function()
        pool:close()
        return {}
      end })
      local ok, err = pcall(function() return pool.call.count(closing):pawait() end)
      assert.is_true(ok, tostring(err))
      assert.equal("closed", select(2, pool.call.count(closing):pawait()).kind)
    end)

    it("may be called by two coroutines at once", function()
      local pool = treadle.pool("tasks", { threads = 1 })
      local gate = helpers.new_path()
      local held = pool.call.hold(gate, "held")
      local a = treadle.spawn(function() pool:close() return "a" end)
      local b = treadle.spawn(function() pool:close() return "b" end)
      assert.equal("pending", a:state())
      helpers.write(gate, "open")
      assert.same({ "a", "b" }, treadle.all { a, b }:await())
      assert.equal("held", held:await())
    end)

    it("takes no more calls, but finishes those that run", function()
      local pool, gate = treadle.pool("tasks", { threads = 1 }), helpers.new_path()
      local held = pool.call.hold(gate, "held")
      local queued = pool.call.add(1, 2)
      local closing = treadle.spawn(function() pool:close() end)
      local ok, err = pool.call.add(1, 2):pawait()
      assert.same({ false, "closed" }, { ok, err.kind })
      helpers.write(gate, "open")
      closing:await()
      assert.same({ "held", 3 }, { held:await(), queued:await() })
    end)

    it("lets the tasks that run make their nested calls", function()
      local pool = treadle.pool("tasks", { threads = 2 })
      local f = pool.call.fib(10)
      pool:close()
      assert.equal(55, f:await())
    end)

    it("terminates after its timeout", function()
      local pool, gate = treadle.pool("tasks", { threads = 1 }), helpers.new_path()
      local held = pool.call.hold(gate, "held")
      local queued = pool.call.add(1, 2)
      pool:close(0.02)
      for _, f in ipairs { held, queued } do
        local ok, err = f:pawait()
        assert.same({ false, "closed", "not finished within 0.02 s of closing the pool" },
          { ok, err.kind, err.message })
      end
    end)

    it("of a task terminates after its timeout, too", function()
      local pool, gate = treadle.pool("tasks", { threads = 2 }), helpers.new_path()
      local held = pool.call.hold(gate, "held")
      helpers.eventually(function() return entered(gate) == 1 end)
      assert.is_true(pool:run(function() require("treadle").worker.pool:close(0.02) end):pawait())
      local closing = treadle.spawn(function() pool:close() end)
      assert.is_true(closing:wait(helpers.TIMEOUT))
      local ok, err = held:pawait()
      assert.same({ false, "closed", "not finished within 0.02 s of closing the pool" },
        { ok, err.kind, err.message })
    end)

    it("goes on after an error of a hook at any instruction of it", function()
      assert.same({ "done\n", "", 0 }, { helpers.child("luajit", [[
        local treadle = require "treadle"
        jit.off()
        local function stop()
          debug.sethook()
          error("stopped", 0)
        end
        for n = 1, 400 do
          local pool = treadle.pool("tasks", { threads = 1 })
          pcall(function()
            debug.sethook(stop, "", n)
            pool:close()
            debug.sethook()
          end)
          pool:close()
        end
        print("done")
      ]]) })
    end)

    it("checks its argument at the caller's line", function()
      local pool = treadle.pool("tasks", { threads = 1 })
      assert.equal("bad argument #1 to 'close' (number expected, got string)",
        helpers.error_here(function() pool:close("1") end))
      pool:close()
    end)

    it("works from a task", function()
      local pool = treadle.pool("tasks", { threads = 2 })
      assert.equal("closed", pool.call.close_own_pool():await())
      local ok, err = pool.call.add(1, 2):pawait()
      assert.same({ false, "closed" }, { ok, err.kind })
      pool:close()
    end)

    it("works in a callback of a future", function()
      local pool = treadle.pool("tasks", { threads = 1 })
      assert.equal(3, pool.call.add(1, 2):finally(function() pool:close() end):await())
    end)

    it("works while the other workers are still starting", function()
      helpers.module("slow_start", [[
        local treadle = require "treadle"
        if treadle.worker.id > 1 then treadle.sleep(0.05) end
        return { id = function() return treadle.worker.id end }
      ]])
      local pool = treadle.pool("slow_start", { threads = 4 })
      pool:close()
      pool = treadle.pool("slow_start", { threads = 4 })
      pool:terminate()
      pool:close()
    end)
  end)

  describe("terminate", function()
    setup(function()
      helpers.module("calls_on", [[
        local treadle = require "treadle"
        return {
          nap = function() treadle.sleep(1000) end,
          echo = function(x) return x end,
          stop = function() treadle.worker.pool:terminate() end,
          on = function(path)
            for i = 1, math.huge do
              treadle.worker.pool:run("echo", { i }, { worker = 1 }):await()
              if i == 1 then require("helpers").write(path, "running") end
            end
          end,
        }
      ]])
    end)

    it("rejects what is queued and what runs, at once and with the reason", function()
      local pool, gate = treadle.pool("tasks", { threads = 2 }), helpers.new_path()
      local list = {}
      for i = 1, 2 do
        list[i] = pool.call.hold(gate)
      end
      helpers.eventually(function() return entered(gate) == 2 end)
      for i = 3, 100 do
        list[i] = pool.call.note(gate .. ".ran", "ran")
      end
      pool:terminate("going home")
      for i = 1, 100 do
        assert.equal("rejected", list[i]:state())
        local _, err = list[i]:pawait()
        assert.equal("closed", err.kind)
        assert.matches("going home", err.message, 1, true)
      end
      pool:close()
      assert.equal("", helpers.read(gate .. ".ran"))
    end)

    it("rejects what waits for an argument, at once, as the end by close does", function()
      local argument, resolve = treadle.future()
      for how, reason in pairs { terminate = "going home", close = "the pool is closed" } do
        local pool = treadle.pool("tasks", { threads = 1 })
        local f = pool.call.add(1, argument)
        local again = pool:run("add", { 1, argument }, { retries = 1 })
        pool[how](pool, how == "terminate" and reason or nil)
        assert.is_true(f:wait(helpers.TIMEOUT) and again:wait(helpers.TIMEOUT))
        for _, call in ipairs { f, again } do
          local _, err = call:pawait()
          assert.same({ "closed", reason, "add" }, { err.kind, err.message, err.task })
        end
        pool:close()
      end
      resolve(1)
    end)

    it("lets close give up a task that computes on", function()
      local pool = treadle.pool("tasks", { threads = 1, terminate_timeout = 0.01 })
      local gate = helpers.new_path()
      pool.call.block(gate)
      helpers.eventually(function() return entered(gate) == 1 end)
      local first = treadle.spawn(function() pool:close() end)
      pool:terminate()
      local second = treadle.spawn(function() pool:close() end)
      assert.is_true(first:wait(helpers.TIMEOUT) and second:wait(helpers.TIMEOUT))
      helpers.write(gate, "open")
    end)

    it("rejects a task that runs before the task can fail of it", function()
      local path = helpers.new_path()
      local pool = treadle.pool("calls_on", { threads = 1, concurrency = IN_FLIGHT + 1 })
      for _ = 1, IN_FLIGHT do
        pool.call.nap()
      end
      local on = pool:run("on", { path }, { worker = 1 }) -- the last to be told
      helpers.eventually(function() return helpers.read(path) == "running" end)
      pool:terminate()
      assert.equal("closed", select(2, on:pawait()).kind)
      pool:close()
    end)

    it("is idempotent and rejects later calls", function()
      local pool = treadle.pool("tasks", { threads = 1 })
      pool:terminate()
      pool:terminate()
      assert.equal("closed", select(2, pool.call.add(1, 2):pawait()).kind)
      pool:close()
      pool:terminate()
    end)

    it("works from a task", function()
      local pool = treadle.pool("tasks", { threads = 2 })
      local ok, err = pool.call.terminate_own_pool():pawait()
      assert.same({ false, "closed" }, { ok, err.kind })
      pool:close()
    end)

    it("by a task closes the tasks whose own calls it refuses", function()
      for _ = 1, 20 do
        local path = helpers.new_path()
        local pool = treadle.pool("calls_on", { threads = 2 })
        local on = pool:run("on", { path }, { worker = 1 })
        helpers.eventually(function() return helpers.read(path) == "running" end)
        pool:run("stop", {}, { worker = 2 }):pawait()
        assert.equal("closed", select(2, on:pawait()).kind)
        pool:close()
      end
    end)

    it("wakes who awaits", function()
      local pool = treadle.pool("tasks", { threads = 1 })
      local waiter = treadle.spawn(function()
        return select(2, pool.call.sleep(1000):pawait()).kind
      end)
      pool:terminate()
      assert.equal("closed", waiter:await())
      pool:close()
    end)

    it("lets teardown run", function()
      helpers.module("with_end", [[
        local treadle = require "treadle"
        local M = {}
        function M.f() return 1 end
        function M.stop() require("helpers").write(treadle.worker.data, "stopped") end
        return M
      ]])
      local path = helpers.new_path()
      local pool = treadle.pool("with_end", { threads = 1, teardown = "stop", data = path })
      pool.call.f():await()
      pool:terminate()
      pool:close()
      assert.equal("stopped", helpers.read(path))
    end)
  end)

  describe("with " .. IN_FLIGHT .. " calls in flight", function()
    local function flood(pool)
      local list = {}
      for i = 1, IN_FLIGHT do
        list[i] = pool.call.echo(i)
      end
      return list
    end

    -- The record of the refused call counted as a call under way.
    it("close ends after a task whose own call was refused", function()
      local pool = treadle.pool("tasks", { threads = 1 })
      local kind = pool:run(function()
        local own = require("treadle").worker.pool
        return select(2, own.call.echo(coroutine.create(function() end)):pawait()).kind
      end):await()
      assert.equal("payload", kind)
      pool:close()
    end)

    it("close gives all results", function()
      local pool = treadle.pool("tasks", { threads = 2 })
      local list = flood(pool)
      pool:close()
      for i = 1, IN_FLIGHT do
        assert(list[i]:await() == i)
      end
    end)

    it("terminate settles each exactly once", function()
      local pool = treadle.pool("tasks", { threads = 2 })
      local list = flood(pool)
      local settled = 0
      for i = 1, IN_FLIGHT do
        list[i]:finally(function() settled = settled + 1 end):catch(function() end)
      end
      pool:terminate()
      for i = 1, IN_FLIGHT do
        local ok, result = list[i]:pawait()
        assert(ok and result == i or not ok and result.kind == "closed")
      end
      pool:close()
      helpers.poll_until(function() return settled == IN_FLIGHT end)
    end)

    it("cancelling them all settles them all", function()
      local pool = treadle.pool("tasks", { threads = 2 })
      local list = flood(pool)
      for i = 1, IN_FLIGHT do
        list[i]:cancel()
        assert(list[i]:state() ~= "pending")
      end
      assert.equal(3, pool.call.add(1, 2):await())
      pool:close()
    end)

    it("a dropped pool finishes them", function()
      local list = flood(treadle.pool("tasks", { threads = 2 }))
      collectgarbage()
      collectgarbage()
      for i = 1, IN_FLIGHT do
        assert(list[i]:await() == i)
      end
    end)

    local FLOOD = [[
      local treadle = require "treadle"
      pool = treadle.pool("tasks", { threads = 2 })
      list = {}
      for i = 1, ]] .. IN_FLIGHT .. [[ do
        list[i] = pool.call.echo(i)
      end
    ]]

    local ENDS = {
      ["falls off its end"] = { "", 0 },
      ["calls os.exit"] = { "os.exit(7)", 7 },
      ["calls os.exit and closes its state"] = { "os.exit(7, true)", 7 },
      ["raises"] = { "error 'on purpose'", 1 },
      ["raises in a coroutine"] = { "treadle.run(function() error 'on purpose' end)", 1 },
      ["drops the pool"] = { "pool = nil collectgarbage() collectgarbage()", 0 },
      ["drops pool and futures"] = { "pool, list = nil collectgarbage() collectgarbage()", 0 },
      ["closes twice"] = { "pool:close() pool:close()", 0 },
      ["terminates and leaves"] = { "pool:terminate()", 0 },
      ["closes in a __gc"] = {
        "local p = newproxy(true) getmetatable(p).__gc = function() pool:close() end", 0 },
      ["awaits in a __gc"] = {
        "local p = newproxy(true) getmetatable(p).__gc = function() list[1]:pawait() end", 0 },
    }
    for name, case in pairs(ENDS) do
      for _, program in ipairs { "luajit", "treadle" } do
        it("a process of " .. program .. " ends that " .. name, function()
          local out, err, code = helpers.child(program, FLOOD .. case[1])
          assert.equal(case[2], code, err)
          assert.equal("", out)
          local expected = case[1]:match("on purpose") or ""
          assert.matches(expected, err, 1, true)
          if expected == "" then
            assert.equal("", (err:gsub("treadle: a rejected future was dropped.-\n", "")))
          end
        end)
      end
    end
  end)

  describe("of a process", function()
    local function ends(text, expected_code, program)
      local out, err, code = helpers.child(program or "luajit", text)
      assert.equal(expected_code, code, err)
      return out, err
    end

    it("does not wait for tasks that sleep for long", function()
      ends([[
        local treadle = require "treadle"
        pool = treadle.pool("tasks", { threads = 2, concurrency = 10 })
        for i = 1, 20 do pool.call.sleep(1000) end
      ]], 0)
    end)

    it("does not wait for a task that computes for ever", function()
      ends([[
        local treadle = require "treadle"
        pool = treadle.pool("tasks", { threads = 2 })
        pool:run(function() while true do end end)
        pool:run(function() local n = 0 while true do n = n + math.random() end end)
        treadle.sleep(0.05)
      ]], 0)
    end)

    it("in the middle of start-up goes well", function()
      helpers.module("late_start", [[
        local treadle = require "treadle"
        if treadle.worker.id > 1 then treadle.sleep(1000) end
        return { f = function() return 1 end }
      ]])
      ends([[
        local treadle = require "treadle"
        pool = treadle.pool("late_start", { threads = 4 })
        print(pool.call.f():await())
      ]], 0)
      ends([[
        local treadle = require "treadle"
        pool = treadle.pool("late_start", { threads = 4 })
        os.exit(3, true)
      ]], 3)
      ends([[
        local treadle = require "treadle"
        pool = treadle.pool("late_start", { threads = 4 })
        pool:close(0.05)
      ]], 0)
    end)

    it("with a future that nobody settles goes well", function()
      ends([[
        local treadle = require "treadle"
        treadle.spawn(function() treadle.future():await() end)
        treadle.spawn(function() treadle.sleep(1000) end)
      ]], 0)
    end)

    it("with many pools goes well", function()
      ends([[
        local treadle = require "treadle"
        pools = {}
        for i = 1, 20 do
          pools[i] = treadle.pool("tasks", { threads = 1 })
          pools[i].call.echo(i)
        end
      ]], 0)
    end)

    it("that never made a pool goes well", function()
      assert.equal("true\n", (ends("print(require('treadle').is_main)", 0)))
    end)

    it("with 40 pools whose tasks sleep gives them one limit in all", function()
      local out = ends([[
        local treadle = require "treadle"
        pools = {}
        for i = 1, 40 do
          pools[i] = treadle.pool("tasks", { threads = 1 })
          pools[i].call.sleep(1000)
        end
        print(("%.6f"):format(treadle.now())) -- the machine's clock: the exit begins
      ]], 0)
      assert.is_true(treadle.now() - tonumber(out) < 40 * 0.2) -- what 40 limits would take
    end)

    it("lets finalizers that run last use pools", function()
      for _, order in ipairs { "guard = make() treadle = require 'treadle' pool = open()",
        "treadle = require 'treadle' guard = make() pool = open()",
        "treadle = require 'treadle' pool = open() guard = make()" } do
        local out, err = ends([[
          function make()
            local proxy = newproxy(true)
            getmetatable(proxy).__gc = function()
              local kind = select(2, pcall(function()
                return select(2, pool.call.add(1, 2):pawait())
              end))
              print(type(kind) == "table" and kind.kind or kind)
              for _ = 1, 2 do
                pcall(pool.close, pool)
                pcall(pool.terminate, pool)
                pcall(treadle.sleep, 0)
                pcall(treadle.poll)
              end
            end
            return proxy
          end
          function open() return treadle.pool("tasks", { threads = 2 }) end
          ]] .. order .. [[ pool.call.add(1, 2)
        ]], 0)
        assert.equal("", err)
        assert.is_true(out == "closed\n" or out == "3\n", out)
      end
    end)

    it("that forked does not touch the parent's workers", function()
      local out = ends([[
        local ffi = require "ffi"
        ffi.cdef "int fork(void); int waitpid(int, int *, int);"
        local treadle = require "treadle"
        pool = treadle.pool("tasks", { threads = 2 })
        pool.call.add(1, 2):await()
        local child = ffi.C.fork()
        if child == 0 then
          os.exit(0, true)
        end
        local status = ffi.new("int[1]")
        ffi.C.waitpid(child, status, 0)
        print(status[0], pool.call.add(20, 22):await())
        pool:close()
      ]], 0)
      assert.equal("0\t42\n", out)
    end)
  end)

  describe("of a worker", function()
    --- Makes a pool, calls it, leaves it; what is called is still under way.
    local LEAVE = [[
      local treadle = require "treadle"
      local kept
      return { leave = function(keep, task, ...)
        local pool = treadle.pool("tasks", { threads = 2, concurrency = 100 })
        for i = 1, 100 do pool.call[task](...) end
        kept = keep and pool or kept
      end }
    ]]

    setup(function() helpers.module("leave_pool", LEAVE) end)

    for _, keep in ipairs { true, false } do
      it("ends the pools that its tasks " .. (keep and "kept" or "dropped"), function()
        for i = 1, 5 do
          local pool = treadle.pool("leave_pool", { threads = 2 })
          pool.call.leave(keep, "echo", i):await()
          pool.call.leave(keep, "sleep", 1000):await()
          pool:terminate()
          pool:close()
        end
        done()
      end)
    end

    it("does not keep its pool from closing by a pool that it gave up", function()
      helpers.module("gives_up", [[
        local treadle = require "treadle"
        return { f = function(gate)
          local pool = treadle.pool("tasks", { threads = 1, terminate_timeout = 0.01 })
          pool.call.block(gate)
          require("helpers").eventually(function()
            return #require("helpers").lines(gate .. ".entered") == 1
          end)
          pool:terminate()
          pool:close()
        end }
      ]])
      local gate = helpers.new_path()
      local pool = treadle.pool("gives_up", { threads = 1 })
      pool.call.f(gate):await()
      local closed = treadle.spawn(function() pool:close() end)
      assert.is_true(closed:wait(helpers.TIMEOUT))
      helpers.write(gate, "open")
      done()
    end)

    it("survives pools of its tasks that do not end", function()
      local gate = helpers.new_path()
      local pool = treadle.pool("leave_pool", { threads = 1 })
      pool.call.leave(true, "block", gate):await()
      helpers.eventually(function() return entered(gate) == 2 end)
      pool:terminate()
      pool:close()
      helpers.write(gate, "open")
      done()
    end)
  end)

  describe("dropping", function()
    it("a pool ends its threads", function()
      local before = helpers.threads()
      local f = treadle.pool("tasks", { threads = 3 }).call.add(1, 2)
      assert.equal(3, f:await())
      f = nil -- luacheck: ignore
      helpers.eventually(function()
        collectgarbage()
        treadle.poll()
        return helpers.threads() <= before
      end)
    end)

    it("a pool but not its caller lets calls go on", function()
      local add = treadle.pool("tasks", { threads = 1 }).call.add
      collectgarbage()
      collectgarbage()
      assert.equal(3, add(1, 2):await())
    end)

    it("a pool but not its call table lets calls go on", function()
      local call = treadle.pool("tasks", { threads = 1 }).call
      collectgarbage()
      collectgarbage()
      assert.equal(3, call.add(1, 2):await())
      collectgarbage()
      collectgarbage()
      assert.equal("x", call.echo("x"):await())
    end)

    it("a pool leaves its tasks their names in errors", function()
      local weak = setmetatable({}, { __mode = "v" })
      local f, echo
      do
        local pool = treadle.pool("tasks", { threads = 1 })
        weak[1], f, echo = pool, pool.call.boom("too bad"), pool.call.echo
      end
      require("jit").flush() -- traces hold on to what they were made of
      collectgarbage()
      collectgarbage()
      assert.is_nil(weak[1])
      assert.equal("boom", select(2, f:pawait()).task)
      assert.equal("echo", select(2, echo(coroutine.create(print)):pawait()).task)
    end)

    it("futures that are under way does no harm", function()
      local pool = treadle.pool("tasks", { threads = 1 })
      for i = 1, 1000 do
        pool.call.echo(i)
      end
      collectgarbage()
      assert.equal(3, pool.call.add(1, 2):await())
      pool:close()
    end)

    it("200 pools one after the other leaves nothing", function()
      local function use(i)
        local pool = treadle.pool("tasks", { threads = 2 })
        assert(pool.call.echo(i):await() == i)
        if i % 4 == 0 then
          pool:terminate()
        elseif i % 4 ~= 1 then
          pool:close()
        end
      end
      for i = 1, 200 do
        use(i)
      end
      done()
    end)
  end)

  it("leaves no thread and no descriptor", function() done() end)
end)
