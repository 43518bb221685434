--- The example's HTTP server under wrk: whether a heavy request holds up the cheap ones.
local helpers = require "helpers"
local treadle = require "treadle"

local connect = require "http_client"
local start_child = require "child"

local MAIN = helpers.folder .. "/../../examples/server/main.lua"

describe("the server under wrk", function()
  local script, server

  setup(function()
    script = helpers.write(helpers.new_path(".lua"), [[
      function done(summary)
        local e = summary.errors
        print(("figures: %d %d"):format(summary.requests, e.read + e.write + e.status))
      end
    ]])
  end)

  teardown(helpers.clean)

  after_each(function()
    if server then
      server.kill("sigkill") -- where a test has failed
    end
  end)

  local function start(...)
    server = start_child("luajit", { MAIN, "--port", "0", "--threads", "1", "--timeout",
      "3600", "--grace", "0", ... })
    helpers.poll_until(function() return server.out:find "\n" end, "the server")
    server.port = tonumber(server.out:match ":(%d+),")
  end

  -- Begin a request that does not end. The server takes it as soon as it has given the answer that
  -- arrives here: they have come in one packet.
  local function begin_endless()
    local client = connect(server.port)
    client:send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
      .. "GET /hash?rounds=1000000000 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert.equal("ok\n", client:response().body)
    return client
  end

  -- Ask for what is cheap, on many connections, for a while.
  -- @return how many answers there were, and how many failures
  local function load()
    local wrk = start_child("wrk", { "-t1", "-c20", "-d1s", "-s", script,
      ("http://127.0.0.1:%d/health"):format(server.port) })
    assert.is_true(wrk.ended:wait(helpers.TIMEOUT))
    helpers.poll_until(function() return wrk.is_silent end)
    local requests, failures = wrk.out:match "figures: (%d+) (%d+)"
    return tonumber(requests), tonumber(failures)
  end

  it("answers the cheap requests while a heavy one runs in the pool", function()
    start()
    local heavy = begin_endless()
    local answers, failures = load()
    assert.is_true(answers > 0, answers)
    assert.equal(0, failures)
    local client = connect(server.port)
    assert.matches('"running":1,', client:ask("/stats").body) -- it has run all the time
    heavy:close()
    repeat
      local body = client:ask("/stats").body
      treadle.sleep(0.001)
    until body:find('"running":0,', 1, true)
    assert.matches('"cancelled":1,', client:ask("/stats").body)
    client:close()
    server.kill("sigterm")
    assert.is_true(server.ended:wait(helpers.TIMEOUT))
    assert.same({ 0, 0 }, { server.ended:await() })
  end)

  it("answers none of them while a heavy one runs in the loop", function()
    start("--inline")
    local heavy = begin_endless()
    assert.equal(0, (load()))
    server.kill("sigkill")
    assert.is_true(server.ended:wait(helpers.TIMEOUT))
    assert.same({ 0, 9 }, { server.ended:await() })
    heavy:close()
  end)
end)
