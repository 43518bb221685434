--- treadle attached to cqueues: coroutines of its controllers await.
package.path = "spec/support/?.lua;" .. package.path
local claims = require "host_claims"
local helpers = require "helpers"
local treadle = require "treadle"

local cqueues = require "cqueues"
local socket = require "cqueues.socket"

describe("in cqueues", function()
  local host, pool = { name = "cqueues", library = cqueues }, nil

  local last -- controller that `run` has made

  --- Its loop must end by itself.
  function host.finish()
    local ok, err = last:loop()
    if not ok then
      error(err, 0)
    end
    assert.is_true(last:empty())
    last = nil
  end

  --- Run functions in a controller.
  function host.run(...)
    last = cqueues.new()
    for _, fn in ipairs { ... } do
      last:wrap(fn)
    end
    host.finish()
  end

  function host.settle() end

  function host.warm()
    cqueues.new():step(0)
  end

  setup(function()
    claims.open(host)
    pool = host.pool
  end)

  teardown(function() claims.close(host) end)

  claims.declare(it, host)

  it("one awaits while another one goes on", function()
    local gate, log = helpers.new_path(), {}
    host.run(function()
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

  it("locks exclude its coroutines from each other", function()
    local mutex, log = treadle.mutex(), {}
    local function use()
      mutex:lock()
      log[#log + 1] = "in"
      cqueues.sleep(0.002)
      log[#log + 1] = "out"
      mutex:unlock()
    end
    host.run(use, use)
    assert.same({ "in", "out", "in", "out" }, log)
  end)

  it("the loop goes on for calls that nobody awaits, and ends behind them", function()
    local told
    host.run(function() pool.call.sleep(0.01):and_then(function(n) told = n end) end)
    assert.equal(0.01, told)
    host.attachment:detach()
    local controller = cqueues.new()
    host.attachment = treadle.attach(controller)
    told = nil
    pool.call.echo(7):and_then(function(n) told = n end)
    assert(controller:loop())
    assert.equal(7, told)
    host.attachment:detach()
    host.attachment = treadle.attach(cqueues)
  end)

  it("two controllers, one within the other", function()
    local log = {}
    host.run(function()
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

  it("main code waits", function()
    treadle.sleep(0.001)
    assert.equal(3, pool.call.add(1, 2):await())
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
    host.run(unpack(functions))
    assert.equal("slow", log[4])
    server:close()
  end)
end)
