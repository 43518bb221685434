--- treadle attached to copas: its threads and handlers await.
package.path = "spec/support/?.lua;" .. package.path
local claims = require "host_claims"
local helpers = require "helpers"
local treadle = require "treadle"

local copas = require "copas"
local socket = require "socket"

describe("in copas", function()
  local host, pool = { name = "copas", library = copas }, nil

  local left = 0 -- of the threads that `run` has started

  function host.finish()
    while left > 0 do
      copas.step()
    end
  end

  --- Run threads until all of them have ended.
  function host.run(...)
    for _, fn in ipairs { ... } do
      left = left + 1
      copas.addthread(function()
        local ok, err = pcall(fn)
        left = left - 1
        assert(ok, err)
      end)
    end
    host.finish()
  end

  function host.settle()
    copas.step(0) -- its thread ends
  end

  setup(function()
    claims.open(host)
    pool = host.pool
  end)

  teardown(function() claims.close(host) end)

  claims.declare(it, host)

  it("one awaits while another one talks through a socket", function()
    local server = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    local gate, log = helpers.new_path(), {}
    host.run(function()
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

  it("sleeps side by side", function()
    assert.same({ "short", "long" }, helpers.with_limit(function(seconds)
      local log = {}
      host.run(function()
        treadle.sleep(seconds)
        log[#log + 1] = "long"
      end, function() -- before that is over
        treadle.sleep(0)
        log[#log + 1] = "short"
      end)
      return log[2] == "long" and log
    end))
  end)

  it("main code that waits runs copas meanwhile", function()
    local ran
    copas.addthread(function()
      treadle.sleep(0.001)
      ran = true
    end)
    treadle.sleep(0.01)
    assert.is_true(ran)
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
    host.run(ask "slow", ask "1", ask "2", ask "3")
    assert.equal("slow", log[4])
    server:close()
  end)
end)
