--- luv beside treadle: timers and TCP mixed with await, in the host and in tasks.
local helpers = require "helpers"
local treadle = require "treadle"

local uv = require "luv"

-- An echo server for one connection; the future of the text that the client got back.
local function echo_once(text)
  local t, luv = require "treadle", require "luv"
  local got, resolve, reject = t.future()
  local received = {}
  local server = luv.new_tcp()
  server:bind("127.0.0.1", 0)
  server:listen(16, function(err)
    assert(not err, err)
    local peer = luv.new_tcp()
    server:accept(peer)
    peer:read_start(function(_, chunk)
      if chunk then
        peer:write(chunk)
      else
        peer:close(function() resolve(table.concat(received)) end)
      end
    end)
  end)
  local client = luv.new_tcp()
  client:connect("127.0.0.1", server:getsockname().port, function(err)
    if err then
      return reject(err)
    end
    client:read_start(function(_, chunk)
      received[#received + 1] = chunk
      if #table.concat(received) == #text then
        client:close()
        server:close()
      end
    end)
    client:write(text)
  end)
  return got
end

-- A future that a luv timer resolves.
local function timer(milliseconds, value)
  local t, luv = require "treadle", require "luv"
  local f, resolve = t.future()
  local handle = luv.new_timer()
  handle:start(milliseconds, 0, function()
    handle:close()
    resolve(value)
  end)
  return f
end

describe("luv", function()
  local done, pool

  setup(function()
    treadle.fd()
    timer(0, 1):wait(0.05)
    echo_once("x"):await() -- libuv keeps a descriptor in reserve from the first socket on
    done = helpers.watch()
    pool = treadle.pool("tasks", { threads = 2, concurrency = 10 })
    rawset(_G, "luv_spec_pool", pool) -- no upvalue: the functions below are sent to workers
    pool:broadcast(function() require "luv" end):await()
  end)

  teardown(helpers.clean)

  local places = {
    ["in the host"] = function(fn) return fn() end,
    ["in a coroutine of the host"] = function(fn) return treadle.run(fn) end,
    ["in a task"] = function(fn) return pool:run(fn):await() end,
  }
  for place, run in pairs(places) do
    it("timers settle futures, " .. place, function()
      assert.equal("rung", run(function() return (timer(5, "rung"):await()) end))
    end)

    it("sockets work without uv.run, " .. place, function()
      local text = ("0123456789"):rep(10000)
      assert.is_true(run(function() return echo_once(text):await() == text end))
    end)

    it("callbacks, calls and sleeps go on side by side, " .. place, function()
      local result = run(function()
        local t = require "treadle"
        local call = (t.is_main and rawget(_G, "luv_spec_pool") or t.worker.pool).call
        return t.all {
          timer(5, 1),
          t.spawn(function() t.sleep(0.005) return 2 end),
          call.add(1, 2),
          echo_once("four"),
          call.sleep(0.005),
        }:await()
      end)
      assert.same({ 1, 2, 3, "four", 0.005 }, result)
    end)

    it("treadle.sleep is right beside a timer that goes on for ever, " .. place, function()
      assert.is_true(run(function()
        local t, luv = require "treadle", require "luv"
        local ticks, handle = 0, luv.new_timer()
        handle:start(1, 1, function() ticks = ticks + 1 end)
        local before = t.now()
        t.sleep(0.03)
        local slept = t.now() - before
        handle:close()
        return slept >= 0.03 and ticks > 0
      end))
    end)

    it("a callback may make calls, " .. place, function()
      assert.equal(3, run(function()
        local t, luv = require "treadle", require "luv"
        local call = (t.is_main and rawget(_G, "luv_spec_pool") or t.worker.pool).call
        local f, resolve = t.future()
        local handle = luv.new_timer()
        handle:start(1, 0, function()
          handle:close()
          call.add(1, 2):and_then(resolve)
        end)
        return (f:await())
      end))
    end)

    it("a callback may await in a coroutine, " .. place, function()
      assert.equal(7, run(function()
        local t, luv = require "treadle", require "luv"
        local f, resolve = t.future()
        local handle = luv.new_timer()
        handle:start(1, 0, coroutine.wrap(function()
          handle:close()
          t.sleep(0.001)
          resolve(7)
        end))
        return (f:await())
      end))
    end)
  end

  it("callbacks that are due at once end the wait for what they settle", function()
    for _ = 1, 5 do
      local before, f = treadle.now(), timer(0, "due")
      assert.is_true(f:wait(helpers.TIMEOUT))
      assert.is_true(treadle.now() - before < helpers.TIMEOUT / 2)
    end
  end)

  it("keeps apart the loops of host and workers", function()
    assert.same({ "a", "b", "c" }, treadle.all {
      pool:run(function() return (timer(2, "a"):await()) end, {}, { worker = 1 }),
      pool:run(function() return (timer(2, "b"):await()) end, {}, { worker = 2 }),
      timer(2, "c"),
    }:await())
  end)

  it("does not slow down calls much: 5,000 round trips end", function()
    for i = 1, 5000 do
      assert(pool.call.echo(i):await() == i)
    end
  end)

  -- It was claimed for the call, as if it slept, and nobody else was woken.
  for name, both in pairs { ["alone uses luv"] = false, ["uses luv as the others do"] = true } do
    it("a callback that computes keeps no call from other workers: its worker " .. name, function()
      local other = treadle.pool("tasks", { threads = 3 })
      local gate = helpers.new_path()
      if both then
        other:broadcast(function()
          require("luv").new_timer():start(1, 0, function() end)
        end):await()
      end
      other:run(function(path)
        require("luv").new_timer():start(1, 0, function() require("tasks").block(path) end)
      end, { gate }, { worker = 1 }):await()
      helpers.poll_until(function() return #helpers.lines(gate .. ".entered") == 1 end)
      for i = 1, 200 do
        local f = other.call.add(i, 1)
        assert.is_true(f:wait(helpers.TIMEOUT))
        assert.equal(i + 1, f:await())
        treadle.sleep(i % 10 == 0 and 0.001 or 0) -- they lie down
      end
      helpers.write(gate, "")
      assert.equal(1, other:run("id", {}, { worker = 1 }):await())
      other:close()
    end)
  end

  -- luv called it, from C: its thread cannot be left, and ends with the process.
  for _, how in ipairs { "terminate", "close" } do
    it("a callback that does not end does not keep a pool from its end by " .. how, function()
      local out, err, code = helpers.child("luajit", ([[
        local treadle = require "treadle"
        local pool = treadle.pool("tasks", { threads = 2, terminate_timeout = 0.1 })
        local path = os.tmpname()
        pool:run(function(log)
          require("luv").new_timer():start(1, 0, function()
            require("tasks").note(log, "entered")
            while true do end
          end)
        end, { path }, { worker = 1 }):await()
        repeat treadle.poll(0.001) until io.lines(path)()
        os.remove(path)
        pool:%s
        pool:close()
        print(select(2, pool.call.id():pawait()).kind)
      ]]):format(how == "close" and "close(0)" or "terminate()"))
      assert.same({ "closed\n", "", 0 }, { out, err, code })
    end)
  end

  it("serves a server in a task while calls go on", function()
    assert.equal("pong", pool:run(function() return (echo_once("pong"):await()) end):await())
  end)

  it("lets a script run uv.run itself", function()
    local ran
    timer(1, 1):and_then(function() ran = true end)
    uv.run("nowait")
    helpers.poll_until(function()
      uv.run("nowait")
      return ran
    end)
  end)

  for _, program in ipairs { "luajit", "treadle" } do
    it("and treadle end a process well, under " .. program, function()
      local out, err, code = helpers.child(program, [[
        local treadle, uv = require "treadle", require "luv"
        local pool = treadle.pool("tasks", { threads = 2 })
        pool:broadcast(function()
          local t, luv = require "treadle", require "luv"
          local h = luv.new_timer()
          h:start(100000, 0, function() end)
          t.sleep(0.001)
        end):await()
        local handle = uv.new_timer()
        handle:start(1, 0, function() print "tick" handle:close() end)
        print(pool.call.add(1, 2):await())
        treadle.sleep(0.02)
        pool:close()
      ]])
      assert.same({ "", 0 }, { err, code })
      assert.matches("3\n", out, 1, true)
      assert.matches("tick\n", out, 1, true)
    end)
  end

  -- Its clock then stands behind ours: a timer that it starts for us fell due before it begins to
  -- wait, and it went to sleep without any.
  it("does not oversleep after a callback of luv's that took long", function()
    local out, err, code = helpers.child("luajit", [[
      local treadle, uv = require "treadle", require "luv"
      local check = uv.new_check()
      check:start(function()
        local stop = treadle.now() + 0.03
        repeat until treadle.now() > stop
      end)
      treadle.sleep(0.05)
      print "awake"
    ]])
    assert.same({ "awake\n", "", 0 }, { out, err, code })
  end)

  describe("when the thread loses its processor just before it sleeps in luv's loop", function()
    local slow = [[
      local core, treadle, uv = require "treadle.core", require "treadle", require "luv"
      local next_timeout = core.next_timeout
      core.next_timeout = function()
        local seconds, stop = next_timeout(), treadle.now() + 0.005
        repeat until treadle.now() > stop
        return seconds
      end
      -- luv's loop comes to the callback in the turn in which it would sleep
      local function just_before_sleep(callback)
        local handle = uv.new_timer()
        uv.update_time()
        handle:start(2, 0, callback)
        return handle
      end
    ]]

    local function expect(code)
      local out, err, status = helpers.child("treadle", slow .. code)
      assert.same({ "awake\n", "", 0 }, { out, err, status })
    end

    it("a callback may start a sleep", function()
      expect [[
        local future, resolve = treadle.future()
        local handle = just_before_sleep(function()
          treadle.spawn(function()
            treadle.sleep(0.001)
            resolve "awake"
          end)
        end)
        print(future:await())
        handle:close()
      ]]
    end)

    it("a callback may wait, and what arrives later still wakes", function()
      local gate = helpers.new_path()
      expect(([[
        local pool = treadle.pool("tasks", { threads = 1 })
        local future = pool.call.hold(%q, "awake")
        local handle = just_before_sleep(function()
          treadle.poll(0.001)
          assert(io.open(%q, "w")):close()
        end)
        print(future:await())
        handle:close()
        pool:close()
      ]]):format(gate, gate))
    end)
  end)

  it("keeps the command's loop alive until its handles are closed", function()
    local out, err, code = helpers.child("treadle", [[
      local uv = require "luv"
      local n, handle = 0, uv.new_timer()
      handle:start(1, 1, function()
        n = n + 1
        io.write(n, " ")
        if n == 3 then
          handle:close()
        end
      end)
    ]])
    assert.same({ "1 2 3 ", "", 0 }, { out, err, code })
  end)

  it("an error in a callback is told", function()
    local _, err = helpers.child("treadle", [[
      local uv = require "luv"
      local handle = uv.new_timer()
      handle:start(1, 0, function() handle:close() error("in a callback") end)
    ]])
    assert.matches("in a callback", err, 1, true)
  end)

  it("leaves no thread and no descriptor", function()
    rawset(_G, "luv_spec_pool", nil)
    pool:close(helpers.TIMEOUT)
    done()
  end)
end)
