--- treadle attached to luv: a program that runs `uv.run()` itself.
local helpers = require "helpers"
local treadle = require "treadle"

local uv = require "luv"

describe("attached to luv", function()
  local done, pool, attachment

  setup(function()
    treadle.fd()
    treadle.sleep(0.001)
    done = helpers.watch()
    attachment = treadle.attach "luv"
    pool = treadle.pool("tasks", { threads = 2, concurrency = 100 })
  end)

  teardown(function()
    pool:close()
    attachment:detach()
    uv.run "nowait"
    done()
    helpers.clean()
  end)

  local function after(milliseconds, fn)
    local timer = uv.new_timer()
    timer:start(milliseconds, 0, function()
      timer:close()
      fn()
    end)
  end

  it("uv.run returns at once when nothing is left to do", function()
    assert.is_false(uv.run())
  end)

  it("uv.run goes on for a call that nobody awaits", function()
    local told
    pool.call.sleep(0.01):and_then(function(n) told = n end)
    uv.run()
    assert.equal(0.01, told)
  end)

  it("uv.run goes on for a call that its last callback makes", function()
    local told
    after(1, function() pool.call.sleep(0.01):and_then(function(n) told = n end) end)
    uv.run()
    assert.equal(0.01, told)
  end)

  it("uv.run goes on for sleeps and coroutines", function()
    local log = {}
    treadle.spawn(function()
      treadle.sleep(0.005)
      log[#log + 1] = "slept"
      local sum = pool.call.add(1, 2):await()
      log[#log + 1] = sum
    end)
    uv.run()
    assert.same({ "slept", 3 }, log)
  end)

  it("an abandoned call keeps the loop up no longer than it lasts", function()
    local f = pool.call.sleep(60)
    after(5, function() f:cancel() end)
    uv.run()
    assert.equal("cancelled", f:state())
  end)

  it("callbacks of luv's go on while coroutines await", function()
    local ticks, gate = 0, helpers.new_path()
    local ticker = uv.new_timer()
    ticker:start(1, 1, function()
      ticks = ticks + 1
      if ticks == 5 then
        helpers.write(gate, "")
      end
    end)
    local got
    treadle.spawn(function()
      got = pool.call.hold(gate, "held"):await()
      ticker:close()
    end)
    uv.run()
    assert.equal("held", got)
    assert.is_true(ticks >= 5)
  end)

  it("main code runs luv's loop while it waits", function()
    local rang, ring = treadle.future()
    after(1, ring)
    assert.is_true(rang:wait(helpers.TIMEOUT))
    assert.equal(3, pool.call.add(1, 2):await())
    assert.is_false(treadle.future():wait(0.005))
  end)

  it("uv.run returns at once behind such a wait", function()
    treadle.sleep(0.001)
    assert.is_false(uv.run())
    treadle.future():wait(0.001)
    assert.is_false(uv.run())
    assert.equal(3, pool.call.add(1, 2):await())
    assert.is_false(uv.run())
  end)

  it("a callback cannot wait, but what it spawns can", function()
    local problem, got
    after(1, function()
      problem = select(2, pcall(treadle.sleep, 0))
      treadle.spawn(function() got = pool.call.echo("spawned"):await() end)
    end)
    uv.run()
    assert.equal("luv: cannot wait in a callback; do it in a coroutine (treadle.spawn)", problem)
    assert.equal("spawned", got)
  end)

  it("an earlier sleep in a callback is in time, behind a later one", function()
    local log = {}
    local late = treadle.spawn(function()
      treadle.sleep(helpers.TIMEOUT)
      log[#log + 1] = "late"
    end)
    after(1, function()
      treadle.spawn(function()
        treadle.sleep(0.001)
        log[#log + 1] = "early"
        late:cancel()
      end)
    end)
    uv.run()
    assert.same({ "early" }, log)
  end)

  it("an error in what a turn runs is told, and the loop goes on", function()
    local out, err, code = helpers.child("luajit", [[
      local treadle, uv = require "treadle", require "luv"
      treadle.attach(uv)
      require("treadle.loop").defer(function() error "lost and found" end)
      treadle.spawn(function() treadle.sleep(0.005) print "the other" end)
      uv.run()
    ]])
    assert.same({ "the other\n", 0 }, { out, code })
    assert.matches("^treadle: .*lost and found", err)
  end)

  it("runs under the command, too", function()
    local out, err, code = helpers.child("treadle", [[
      local treadle, uv = require "treadle", require "luv"
      treadle.attach()
      local pool = treadle.pool("string", { threads = 1 })
      print(pool.call.upper("main"):await())
      pool.call.upper("call"):and_then(print)
      uv.run()
      local timer = uv.new_timer()
      timer:start(1, 0, function() timer:close() print "drained" end)
      pool:close()
    ]])
    assert.same({ "MAIN\nCALL\ndrained\n", "", 0 }, { out, err, code })
  end)

  it("detached, treadle runs luv's loop in its own waits again", function()
    for _ = 1, 10 do
      local rang, ring = treadle.future()
      attachment:detach()
      after(1, ring)
      assert.is_true(rang:wait(helpers.TIMEOUT))
      assert.equal(3, pool.call.add(1, 2):await())
      attachment = treadle.attach(uv)
      pool.call.echo(1):and_then(function() rang = 1 end)
      uv.run()
      assert.equal(1, rang)
    end
  end)
end)
