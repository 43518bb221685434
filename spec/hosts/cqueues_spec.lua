--- treadle attached to cqueues: coroutines of its controllers await.
package.path = "spec/support/?.lua;" .. package.path
local helpers = require "helpers"
local treadle = require "treadle"

local cqueues = require "cqueues"
local socket = require "cqueues.socket"

describe("in cqueues", function()
  local done, pool, attachment

  setup(function()
    treadle.fd()
    cqueues.new():step(0)
    done = helpers.watch()
    attachment = treadle.attach(cqueues)
    pool = treadle.pool("tasks", { threads = 2, concurrency = 100 })
  end)

  teardown(function()
    pool:close()
    attachment:detach()
    attachment = nil
    done()
    helpers.clean()
  end)

  --- Run functions in a controller, whose loop must end by itself.
  local function run(...)
    local controller = cqueues.new()
    for _, fn in ipairs { ... } do
      controller:wrap(fn)
    end
    assert(controller:loop())
    assert.is_true(controller:empty())
  end

  --- Run one: its results.
  local function results(fn)
    local list
    run(function() list = { pcall(fn) } end)
    assert(list[1], list[2])
    return unpack(list, 2)
  end

  it("coroutines await at the same time, each gets its own", function()
    local functions, sum = {}, 0
    for i = 1, 50 do
      functions[i] = function()
        local n = pool.call.add(i, i):await()
        sum = sum + n
      end
    end
    run(unpack(functions))
    assert.equal(50 * 51, sum)
  end)

  it("one awaits while another one goes on", function()
    local gate, log = helpers.new_path(), {}
    run(function()
      local got = pool.call.hold(gate, "awaited"):await()
      log[#log + 1] = got
    end, function()
      for i = 1, 5 do
        cqueues.sleep(0.001)
        log[#log + 1] = i
      end
      helpers.write(gate, "")
    end)
    assert.same({ 1, 2, 3, 4, 5, "awaited" }, log)
  end)

  it("errors, time limits and cancellation arrive", function()
    assert.matches("crack", tostring(results(function()
      return select(2, pool.call.boom("crack"):pawait())
    end)))
    assert.is_false(results(function() return treadle.future():wait(0.005) end))
    assert.equal("timeout", results(function()
      return select(2, pool:run("sleep", { 60 }, { timeout = 0.01 }):pawait())
    end).kind)
    local f, err = treadle.future(), nil
    run(function() err = select(2, f:pawait()) end, function()
      treadle.sleep(0.002)
      f:cancel()
    end)
    assert.equal("cancelled", err.kind)
    assert.matches("child", tostring(results(function()
      return select(2, pcall(treadle.group, function(g)
        g:spawn(function()
          treadle.sleep(0.002)
          error("child", 0)
        end)
        treadle.sleep(math.huge)
      end))
    end)))
  end)

  it("locks exclude its coroutines from each other", function()
    local mutex, log = treadle.mutex(), {}
    local function use()
      mutex:lock()
      log[#log + 1] = "in"
      cqueues.sleep(0.002)
      log[#log + 1] = "out"
      mutex:unlock()
    end
    run(use, use)
    assert.same({ "in", "out", "in", "out" }, log)
  end)

  it("a full queue is waited for", function()
    local narrow = treadle.pool("tasks", { threads = 1, max_queue = 1, on_full = "wait" })
    local functions, sum = {}, 0
    for i = 1, 20 do
      functions[i] = function()
        local n = narrow.call.echo(i):await()
        sum = sum + n
      end
    end
    run(unpack(functions))
    assert.equal(210, sum)
    run(function() narrow:close() end)
  end)

  it("the loop goes on for calls that nobody awaits, and ends behind them", function()
    local told
    run(function() pool.call.sleep(0.01):and_then(function(n) told = n end) end)
    assert.equal(0.01, told)
    attachment:detach()
    local controller = cqueues.new()
    attachment = treadle.attach(controller)
    told = nil
    pool.call.echo(7):and_then(function(n) told = n end)
    assert(controller:loop())
    assert.equal(7, told)
    attachment:detach()
    attachment = treadle.attach(cqueues)
  end)

  it("two controllers, one within the other", function()
    local log = {}
    run(function()
      local inner = cqueues.new()
      inner:wrap(function()
        local got = pool.call.echo("inner"):await()
        log[#log + 1] = got
      end)
      assert(inner:loop())
      local got = pool.call.echo("outer"):await()
      log[#log + 1] = got
    end)
    assert.same({ "inner", "outer" }, log)
  end)

  it("main code waits; a callback in a turn cannot", function()
    treadle.sleep(0.001)
    assert.equal(3, pool.call.add(1, 2):await())
    local problem
    local off = pool:on("job_done", function()
      problem = problem or select(2, pcall(treadle.sleep, 0.001))
    end)
    run(function()
      pool.call.add(1, 2):await()
      while not problem do
        treadle.sleep(0.001)
      end
    end)
    off()
    assert.equal("cqueues: cannot wait in a callback; do it in a coroutine (treadle.spawn)",
      problem)
  end)

  it("an echo server answers the quick ones while the slow one's task runs", function()
    local server = socket.listen("127.0.0.1", 0)
    assert(server:listen())
    local _, _, port = server:localname()
    local gate, log, functions = helpers.new_path(), {}, {}
    functions[1] = function()
      local own = cqueues.running()
      for _ = 1, 4 do
        local peer = server:accept()
        own:wrap(function()
          local line = peer:read "*l"
          local answer = line == "slow" and pool.call.hold(gate, line) or pool.call.echo(line)
          peer:write(answer:await() .. "\n")
          peer:flush()
          peer:close()
        end)
      end
    end
    for i, line in ipairs { "slow", "1", "2", "3" } do
      functions[i + 1] = function()
        local client = socket.connect("127.0.0.1", port)
        client:write(line .. "\n")
        client:flush()
        local got = client:read "*l"
        log[#log + 1] = got
        client:close()
        if #log == 3 then
          helpers.write(gate, "")
        end
      end
    end
    run(unpack(functions))
    assert.equal("slow", log[4])
    server:close()
  end)

  it("10000 awaits leave no memory and no descriptor behind", function()
    local function awaits(n)
      run(function()
        for i = 1, n do
          assert(pool.call.echo(i):await() == i)
        end
      end)
      collectgarbage()
      collectgarbage()
      return collectgarbage "count"
    end
    local before, descriptors = awaits(1000), helpers.descriptors()
    assert.is_true(awaits(10000) < before + 200)
    assert.equal(descriptors, helpers.descriptors())
  end)

  it("can be detached and attached again", function()
    for i = 1, 20 do
      attachment:detach()
      assert.equal(i, pool.call.echo(i):await())
      attachment = treadle.attach "cqueues"
      assert.equal(i, results(function() return (pool.call.echo(i):await()) end))
    end
  end)

  it("the example answers, run by luajit and by treadle", function()
    local root = helpers.folder .. "/../.."
    for _, program in ipairs { "luajit", "treadle" } do
      local out, err, code = helpers.shell(("exec %s %s/examples/cqueues_server.lua"):format(
        program, helpers.quote(root)))
      assert.same({ "", 0 }, { err, code })
      assert.matches("client: 2000000 148933\n.*all answers are right\n$", out)
    end
  end)
end)
