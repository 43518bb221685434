--- Futures: waiting, settling, chaining. Cancelling and time limits: cancel_spec, timeout_spec.
local helpers = require "helpers"
local treadle = require "treadle"

describe("a future", function()
  local done, pool, wide

  setup(function()
    done = helpers.watch()
    pool = treadle.pool("tasks", { threads = 1 })
    wide = treadle.pool("tasks", { threads = 2, concurrency = 100 })
  end)

  teardown(helpers.clean)

  -- A gate that holds the only worker of `pool`; the function that is returned opens it.
  local function occupy()
    local gate = helpers.new_path()
    local f = pool.call.hold(gate, "held")
    helpers.eventually(function() return helpers.read(gate .. ".entered") ~= "" end)
    return function()
      helpers.write(gate, "open")
      return f:await()
    end
  end

  local function count_and(...)
    return select("#", ...), ...
  end

  -- Each place where code may wait.
  local places = {
    ["in a main chunk"] = function(fn) return fn() end,
    ["in treadle.run"] = function(fn) return treadle.run(fn) end,
    ["in treadle.spawn"] = function(fn) return treadle.spawn(fn):await() end,
    ["in a plain coroutine"] = function(fn)
      local results
      coroutine.wrap(function() results = { count_and(pcall(fn)) } end)()
      helpers.poll_until(function() return results end)
      if not results[2] then
        error(results[3], 0)
      end
      return unpack(results, 3, results[1] + 1)
    end,
  }

  for place, run in pairs(places) do
    describe(place, function()
      it("awaits results", function()
        assert.equal(42, run(function() return pool.call.add(20, 22):await() end))
      end)

      it("keeps all results and their nils", function()
        assert.same({ 5, nil, 1, nil, 2, nil, n = 6 }, (function(...)
          return { n = select("#", ...), ... }
        end)(run(function() return count_and(pool.call.echo(nil, 1, nil, 2, nil):await()) end)))
      end)

      it("raises the error", function()
        local ok, err = pcall(run, function() return pool.call.boom("no!"):await() end)
        assert.is_false(ok)
        assert.equal("task", err.kind)
        assert.matches("no!", err.message, 1, true)
      end)

      it("raises inside of pcall", function()
        local ok, kind = run(function()
          local fine, err = pcall(function() return pool.call.boom("no!"):await() end)
          return fine, err.kind
        end)
        assert.same({ false, "task" }, { ok, kind })
      end)

      it("pawait gives true and the results, or false and the error", function()
        assert.same({ 4, true, 1, nil, 2 }, { run(function()
          return count_and(pool.call.echo(1, nil, 2):pawait())
        end) })
        local ok, err = run(function() return pool.call.boom("no!"):pawait() end)
        assert.same({ false, "task" }, { ok, err.kind })
      end)

      it("wait says whether it was settled in time, and settles nothing", function()
        local f, resolve = treadle.future()
        assert.is_false(run(function() return f:wait(0.01) end))
        assert.is_false(run(function() return f:wait(0) end))
        assert.equal("pending", f:state())
        resolve(7)
        assert.is_true(run(function() return f:wait(helpers.TIMEOUT) end))
        assert.equal(7, f:await())
        assert.is_true(run(function() return pool.call.add(1, 2):wait() end))
        assert.is_true(run(function() return treadle.rejected("x"):wait(1) end))
      end)

      it("awaits one that is settled already", function()
        local f = pool.call.add(1, 2)
        f:wait()
        assert.equal(3, run(function() return f:await() end))
        assert.equal(3, run(function() return f:await() end))
      end)

      it("sleeps", function()
        local before = treadle.now()
        run(function() treadle.sleep(0.02) end)
        assert.is_true(treadle.now() - before >= 0.02)
      end)
    end)
  end

  describe("in a task", function()
    it("awaits, pawaits, waits, spawns, sleeps and chains", function()
      local results = pool:run(function()
        local t = require "treadle"
        local call = t.worker.pool.call
        local list = {}
        list[1] = call.add(1, 2):await()
        list[2] = select(2, call.boom("x"):pawait()).kind
        list[3] = tostring(t.future():wait(0.001))
        list[4] = t.spawn(function() t.sleep(0.001) return "spawned" end):await()
        list[5] = call.add(2, 3):and_then(function(v) return call.add(v, 1) end):await()
        list[6] = #t.all { call.add(1, 1), call.add(2, 2) }:await()
        list[7] = t.run(function() return call.add(3, 4):await() end)
        local result
        coroutine.wrap(function() result = call.add(4, 4):await() end)()
        while not result do
          t.sleep(0)
        end
        list[8] = result
        return list
      end):await()
      assert.same({ 3, "task", "false", "spawned", 6, 2, 7, 8 }, results)
    end)
  end)

  it("may have many that wait for it", function()
    local f, resolve = treadle.future()
    local sum, list = 0, {}
    for i = 1, 50 do
      list[i] = treadle.spawn(function()
        local v = f:await()
        sum = sum + v
      end)
    end
    f:and_then(function(v) sum = sum + 1000 * v end)
    resolve(2)
    treadle.all(list):await()
    helpers.poll_until(function() return sum == 2100 end)
  end)

  describe("state", function()
    it("is pending, then resolved", function()
      local open = occupy()
      local f = pool.call.add(1, 2)
      assert.equal("pending", f:state())
      assert.matches("pending", tostring(f))
      open()
      f:wait()
      assert.equal("resolved", f:state())
    end)

    it("is rejected or cancelled after an error", function()
      local f = pool.call.boom("x")
      f:wait()
      assert.equal("rejected", f:state())
      f = treadle.future()
      f:cancel()
      assert.equal("cancelled", f:state())
    end)

    it("looks whether results have arrived", function()
      local f = pool.call.add(1, 2)
      helpers.eventually(function() return f:state() == "resolved" end)
    end)
  end)

  describe("as an argument", function()
    it("is awaited first and replaced by its value", function()
      assert.equal(6, pool.call.add(pool.call.add(1, 2), 3):await())
      assert.equal(6, pool.call.add(pool.call.add(1, 2), pool.call.add(1, 2)):await())
      assert.equal(5, pool:run("add", { treadle.resolved(2), 3 }):await())
      assert.same({ 3, nil, 7, nil },
        { count_and(pool.call.echo(nil, treadle.resolved(7), nil):await()) })
    end)

    it("gives its first result", function()
      assert.equal(1, pool.call.count(pool.call.echo(1, 2, 3)):await())
      assert.equal(2, pool.call.count(pool.call.echo(), 1):await())
    end)

    it("that is rejected rejects the call with its error, and no worker sees it", function()
      local path = helpers.new_path()
      local ok, err = pool.call.note(path, pool.call.boom("inner")):pawait()
      assert.is_false(ok)
      assert.equal("task", err.kind)
      assert.matches("inner", err.message, 1, true)
      local value = {}
      ok, err = pool.call.note(path, treadle.rejected(value)):pawait()
      assert.is_false(ok)
      assert.equal(value, err)
      assert.equal("", helpers.read(path))
    end)

    it("whose value cannot travel rejects the call", function()
      local ok, err = pool.call.echo(treadle.resolved(coroutine.create(print))):pawait()
      assert.same({ false, "payload" }, { ok, err.kind })
      assert.matches("arguments[1]", err.message, 1, true)
    end)

    it("inside of a table is refused with its path", function()
      local ok, err = pool.call.echo({ f = treadle.resolved(1) }):pawait()
      assert.same({ false, "payload" }, { ok, err.kind })
      assert.matches("arguments[1].f", err.message, 1, true)
    end)

    it("works in broadcast and with a shipped function", function()
      assert.same({ 5, 5 }, wide:broadcast("add", treadle.resolved(2), 3):await())
      assert.equal(4, pool:run(function(v) return v + 1 end, { pool.call.add(1, 2) }):await())
    end)

    it("of a pool that is closed meanwhile rejects with closed", function()
      local other, argument = treadle.pool("tasks", { threads = 1 }), treadle.future()
      local f = other.call.echo(argument)
      other:close(helpers.TIMEOUT)
      argument:cancel()
      assert.is_false((f:pawait()))
    end)
  end)

  describe("made by hand", function()
    it("is settled by the first of resolve, reject and cancel", function()
      local f, resolve, reject = treadle.future()
      assert.equal("pending", f:state())
      resolve(1, nil, 3)
      resolve(2)
      reject("x")
      f:cancel()
      assert.equal("resolved", f:state())
      assert.same({ 3, 1, nil, 3 }, { count_and(f:await()) })
      f, resolve, reject = treadle.future()
      reject("x")
      resolve(1)
      assert.same({ false, "x" }, { f:pawait() })
    end)

    it("is resolved or rejected from the start", function()
      assert.same({ 3, 1, nil, 3 }, { count_and(treadle.resolved(1, nil, 3):await()) })
      assert.same({ 0 }, { count_and(treadle.resolved():await()) })
      local err = {}
      local ok, got = treadle.rejected(err):pawait()
      assert.is_false(ok)
      assert.equal(err, got)
      assert.equal("rejected", treadle.rejected("x"):state())
    end)

    it("raises the very value that it was rejected with", function()
      local err = { code = 7 }
      local ok, got = pcall(function() treadle.rejected(err):await() end)
      assert.is_false(ok)
      assert.equal(err, got)
    end)
  end)

  describe("chained", function()
    it("by and_then passes on what the function returns", function()
      assert.same({ 2, 3, 4 }, { count_and(pool.call.add(1, 2):and_then(function(v)
        return v, v + 1
      end):await()) })
    end)

    it("by and_then gives all results to the function", function()
      local n
      pool.call.echo(nil, 2, nil):and_then(function(...) n = select("#", ...) end):await()
      assert.equal(3, n)
    end)

    it("adopts a future that is returned, however deep", function()
      local f = treadle.resolved(1):and_then(function(v)
        return pool.call.add(v, 1):and_then(function(w)
          return treadle.resolved(treadle.resolved(w + 1))
        end)
      end)
      assert.equal(3, f:await())
    end)

    it("passes an error by to the next catch", function()
      local ran
      local f = pool.call.boom("x"):and_then(function() ran = true end)
        :catch(function(err) return "caught " .. err.kind end)
      assert.equal("caught task", f:await())
      assert.is_nil(ran)
    end)

    it("by catch passes results by", function()
      assert.same({ 3, 1, nil, 2 },
        { count_and(pool.call.echo(1, nil, 2):catch(error):await()) })
    end)

    it("by finally keeps the outcome", function()
      local runs = 0
      local function count() runs = runs + 1 end
      assert.same({ 3, 1, nil, 2 },
        { count_and(pool.call.echo(1, nil, 2):finally(count):await()) })
      local ok, err = pool.call.boom("x"):finally(count):pawait()
      assert.same({ false, "task" }, { ok, err.kind })
      assert.equal(2, runs)
    end)

    it("by finally waits for the future that the function returns", function()
      local gate, open = treadle.future()
      local f = treadle.resolved(1):finally(function() return gate end)
      treadle.poll()
      assert.equal("pending", f:state())
      open("ignored")
      assert.equal(1, f:await())
    end)

    it("rejects with an error of the function", function()
      local function oops() error("oops") end
      for _, f in ipairs { treadle.resolved(1):and_then(oops), treadle.rejected("x"):catch(oops),
        treadle.resolved(1):finally(oops), treadle.rejected("x"):finally(oops) } do
        local ok, err = f:pawait()
        assert.is_false(ok)
        assert.equal("task", err.kind)
        assert.matches("future_spec.lua:%d+: oops", err.message)
      end
    end)

    it("rejects with an error of a returned future", function()
      local ok, err = treadle.resolved(1)
        :and_then(function() return treadle.rejected("inner") end):pawait()
      assert.same({ false, "inner" }, { ok, err })
    end)

    it("may wait in the function", function()
      local f = pool.call.add(1, 2):and_then(function(v)
        treadle.sleep(0.001)
        return pool.call.add(v, 1):await()
      end)
      assert.equal(4, f:await())
    end)

    it("runs the function later, not at once", function()
      local order = {}
      local f = treadle.resolved(1):and_then(function() order[#order + 1] = "function" end)
      order[#order + 1] = "after"
      f:await()
      assert.same({ "after", "function" }, order)
    end)

    it("10,000 times ends", function()
      local f = treadle.resolved(0)
      for _ = 1, 10000 do
        f = f:and_then(function(v) return v + 1 end)
      end
      assert.equal(10000, f:await())
    end)
  end)

  describe("dropped after it was rejected", function()
    local function warnings(text)
      local out, err, code = helpers.child("luajit", [[
        local treadle = require "treadle"
        local pool = treadle.pool("tasks", { threads = 1 })
        ]] .. text .. [[
        for _ = 1, 10 do collectgarbage() treadle.poll(0.001) end
        pool:close()
        collectgarbage()
        io.stdout:write "end"
      ]])
      assert.same({ "end", 0 }, { out, code })
      return err, select(2, err:gsub("dropped", "")), select(2, err:gsub("treadle:", ""))
    end

    it("without ever having been looked at prints one warning with its traceback", function()
      local err, dropped, lines = warnings [[
        pool.call.boom("lost treasure")
        pool.call.add(1, 2):await()
      ]]
      assert.same({ 1, 1 }, { dropped, lines })
      assert.matches("lost treasure", err, 1, true)
      assert.matches("tasks.lua:%d+:", err)
      assert.matches("stack traceback", err, 1, true)
    end)

    it("warns also at the end of the process", function()
      local out, err, code = helpers.child("luajit", [[
        local treadle = require "treadle"
        local pool = treadle.pool("tasks", { threads = 1 })
        keep = pool.call.boom("lost treasure")
        pool.call.add(1, 2):await()
        pool:close()
      ]])
      assert.same({ "", 0 }, { out, code })
      assert.equal(1, select(2, err:gsub("lost treasure", "")), err)
    end)

    it("warns of one that was rejected by hand or in a coroutine", function()
      local err, dropped = warnings [[
        treadle.rejected("by hand")
        treadle.spawn(function() error("in a coroutine") end)
      ]]
      assert.equal(2, dropped)
      assert.matches("by hand", err, 1, true)
      assert.matches("in a coroutine", err, 1, true)
    end)

    it("warns once of a chain that nobody looks at", function()
      local _, dropped = warnings [[
        pool.call.boom("x"):and_then(print):and_then(print)
        pool.call.add(1, 2):await()
        for _ = 1, 5 do treadle.poll() end
      ]]
      assert.equal(1, dropped)
    end)

    local LOOKED_AT = {
      pawait = 'pool.call.boom("x"):pawait()',
      await = 'local f = pool.call.boom("x") pcall(f.await, f)',
      wait = 'pool.call.boom("x"):wait()',
      catch = 'pool.call.boom("x"):catch(function() end):await()',
      state = 'local f = pool.call.boom("x") while f:state() == "pending" do end',
      all = 'treadle.all { pool.call.boom("x"), pool.call.boom("y") }:pawait() '
        .. 'pool.call.add(1, 1):await()',
      all_settled = 'treadle.all_settled { pool.call.boom("x"), pool.call.boom("y") }:await()',
      race = 'treadle.race { pool.call.boom("x"), pool.call.boom("y") }:pawait() '
        .. 'pool.call.add(1, 1):await()',
      as_completed = 'for _, f in treadle.as_completed { pool.call.boom("x") } do f:pawait() end',
      argument = 'pool.call.add(pool.call.boom("x"), 1):pawait()',
      cancel = 'local f = pool.call.sleep(1000) f:cancel() f = nil',
    }
    for name, code in pairs(LOOKED_AT) do
      it("is silent after " .. name, function()
        assert.equal("", (warnings(code .. "\n")))
      end)
    end
  end)

  describe("misused", function()
    it("without self names the colon, at the caller's line", function()
      local f = treadle.resolved(1)
      local names = { "pawait", "wait", "state", "cancel", "and_then", "catch", "finally" }
      for _, name in ipairs(names) do
        local method = f[name]
        local message = helpers.error_here(function() method() end)
        assert.matches("'" .. name .. "'", message, 1, true)
        assert.matches("colon", message, 1, true)
      end
      assert.matches("future expected, got nil",
        helpers.error_here(function() f.await() end), 1, true)
      assert.matches("future expected, got number",
        helpers.error_here(function() f.await(1) end), 1, true)
      assert.matches("future expected, got table",
        helpers.error_here(function() f.await({}) end), 1, true)
    end)

    it("in the place of its result says how to get that, at the caller's line", function()
      local f = treadle.resolved(1)
      local wanted = "a future is not its result yet: f:await() waits for that and returns it"
      assert.equal(wanted, helpers.error_here(function() return f + 1 end))
      assert.equal(wanted, helpers.error_here(function() return 2 * f end))
      assert.equal(wanted, helpers.error_here(function() return -f end))
      assert.equal(wanted, helpers.error_here(function() return "result: " .. f end))
      assert.equal(wanted, helpers.error_here(function() local _ = f() end))
    end)

    it("with a wrong type says so, at the caller's line", function()
      local f = treadle.resolved(1)
      assert.equal("bad argument #1 to 'and_then' (function expected, got nil)",
        helpers.error_here(function() f:and_then() end))
      assert.equal("bad argument #1 to 'catch' (function expected, got number)",
        helpers.error_here(function() f:catch(1) end))
      assert.equal("bad argument #1 to 'finally' (function expected, got table)",
        helpers.error_here(function() f:finally({}) end))
      assert.equal("bad argument #1 to 'wait' (number expected, got string)",
        helpers.error_here(function() f:wait("1") end))
    end)
  end)

  it("keeps apart 10,000 that are under way", function()
    local list = {}
    for i = 1, 10000 do
      list[i] = wide.call.echo(i)
    end
    for i = 1, 10000 do
      assert(list[i]:await() == i)
    end
  end)

  it("leaves no thread and no descriptor", function()
    pool:close(helpers.TIMEOUT)
    wide:close(helpers.TIMEOUT)
    done()
  end)
end)
