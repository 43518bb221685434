--- treadle attached to copas: its threads and handlers await.
package.path = "spec/support/?.lua;" .. package.path
local helpers = require "helpers"
local treadle = require "treadle"

local copas = require "copas"
local socket = require "socket"

describe("in copas", function()
  local done, pool, attachment

  setup(function()
    treadle.fd()
    done = helpers.watch()
    attachment = treadle.attach(copas)
    pool = treadle.pool("tasks", { threads = 2, concurrency = 100 })
  end)

  teardown(function()
    pool:close()
    attachment:detach()
    copas.step(0) -- its thread ends
    done()
    helpers.clean()
  end)

  --- Run threads until all of them have ended.
  local function run(...)
    local left = select("#", ...)
    for _, fn in ipairs { ... } do
      copas.addthread(function()
        local ok, err = pcall(fn)
        left = left - 1
        assert(ok, err)
      end)
    end
    while left > 0 do
      copas.step()
    end
  end

  --- Run one: its results.
  local function results(fn)
    local list
    run(function() list = { pcall(fn) } end)
    assert(list[1], list[2])
    return unpack(list, 2)
  end

  it("threads await at the same time, each gets its own", function()
    local threads, sum = {}, 0
    for i = 1, 50 do
      threads[i] = function()
        local n = pool.call.add(i, i):await()
        sum = sum + n
      end
    end
    run(unpack(threads))
    assert.equal(50 * 51, sum)
  end)

  it("one awaits while another one talks through a socket", function()
    local server = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    local gate, log = helpers.new_path(), {}
    run(function()
      local got = pool.call.hold(gate, "awaited"):await()
      log[#log + 1] = got
    end, function()
      server:settimeout(0)
      local client = socket.tcp()
      copas.connect(client, "127.0.0.1", port)
      local peer = assert(server:accept())
      peer:settimeout(0)
      for i = 1, 5 do
        copas.send(client, i .. "\n")
        local got = copas.receive(peer, "*l")
        log[#log + 1] = got
      end
      client:close()
      peer:close()
      helpers.write(gate, "")
    end)
    server:close()
    assert.same({ "1", "2", "3", "4", "5", "awaited" }, log)
  end)

  it("errors, time limits and cancellation arrive", function()
    assert.matches("crack", tostring(results(function()
      return select(2, pool.call.boom("crack"):pawait())
    end)))
    assert.is_false(results(function() return treadle.future():wait(0.005) end))
    assert.equal("timeout", results(function()
      return select(2, pool:run("sleep", { 60 }, { timeout = 0.01 }):pawait())
    end).kind)
    local f = treadle.future()
    local err
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

  it("sleeps side by side", function()
    local log = {}
    run(function()
      treadle.sleep(0.02)
      log[#log + 1] = 2
    end, function()
      treadle.sleep(0.002)
      log[#log + 1] = 1
    end)
    assert.same({ 1, 2 }, log)
  end)

  it("a full queue is waited for", function()
    local narrow = treadle.pool("tasks", { threads = 1, max_queue = 1, on_full = "wait" })
    local threads, sum = {}, 0
    for i = 1, 20 do
      threads[i] = function()
        local n = narrow.call.echo(i):await()
        sum = sum + n
      end
    end
    run(unpack(threads))
    assert.equal(210, sum)
    run(function() narrow:close() end)
  end)

  it("main code runs copas meanwhile; a callback in a turn cannot wait", function()
    local ran
    copas.addthread(function()
      treadle.sleep(0.001)
      ran = true
    end)
    treadle.sleep(0.01)
    assert.is_true(ran)
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
    assert.equal("copas: cannot wait in a callback; do it in a coroutine (treadle.spawn)", problem)
  end)

  it("handlers await, others are answered meanwhile, sockets are closed at the end", function()
    local server = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    local gate = helpers.new_path()
    copas.addserver(server, function(peer)
      local line = copas.receive(peer, "*l")
      local answer = line == "slow" and pool.call.hold(gate, line) or pool.call.echo(line)
      peer:send(answer:await() .. "\n")
    end)
    local log = {}
    local function ask(line)
      return function()
        local client = socket.tcp()
        client:settimeout(0)
        copas.connect(client, "127.0.0.1", port)
        copas.send(client, line .. "\n")
        local got = copas.receive(client, "*l")
        log[#log + 1] = got
        local rest, problem = copas.receive(client, "*l")
        assert(rest == nil and problem == "closed")
        client:close()
        if #log == 3 then
          helpers.write(gate, "")
        end
      end
    end
    run(ask "slow", ask "1", ask "2", ask "3")
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
      copas.step(0)
      attachment = treadle.attach "copas"
      assert.equal(i, results(function() return (pool.call.echo(i):await()) end))
    end
  end)

  it("the example answers, run by luajit and by treadle", function()
    local root = helpers.folder .. "/../.."
    for _, program in ipairs { "luajit", "treadle" } do
      local out, err, code = helpers.shell(("exec %s %s/examples/copas_server.lua"):format(
        program, helpers.quote(root)))
      assert.same({ "", 0 }, { err, code })
      assert.matches("client: 2000000 148933\n.*all answers are right\n$", out)
    end
  end)
end)
