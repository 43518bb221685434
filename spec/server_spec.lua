--- The example's HTTP server: its protocol, its limits, its time limits, its end.
local helpers = require "helpers"
local treadle = require "treadle"

local connect = require "http_client"
local start_child = require "child"

local examples = helpers.folder .. "/../../examples"
package.path = examples .. "/?.lua;" .. package.path

local http = require "server.http"
local message = require "server.message"
local new_app = require "server.app"
local png = require "png"

local poll_until = helpers.poll_until
local ENDLESS = "/hash?rounds=1000000000"
local HEAD = "Host: h\r\n"

describe("the server", function()
  local done, app, errors

  -- Serve with these options until `fn` has ended; all connections must be gone then.
  local function serving(options, fn)
    errors = {}
    options.port = 0
    options.on_error = function(err) errors[#errors + 1] = tostring(err) end
    local server = http.serve(options)
    local ok, err = xpcall(fn, debug.traceback, server)
    server:close(ok and helpers.TIMEOUT or 0)
    if not ok then
      error(err, 0)
    end
    assert.equal(0, server.counts.connections)
    assert.is_nil(next(server.connections))
  end

  -- The same with the example's routes and a pool.
  local function serving_app(options, fn)
    errors = {}
    options.http = options.http or {}
    options.http.port = 0
    options.http.on_error = function(err) errors[#errors + 1] = tostring(err) end
    options.threads = options.threads or 1
    options.timeout = options.timeout or helpers.TIMEOUT
    app = new_app(options)
    local ok, err = xpcall(fn, debug.traceback, app)
    app:close(ok and helpers.TIMEOUT or 0)
    if not ok then
      error(err, 0)
    end
    assert.same({}, errors)
  end

  -- The server's side of its only connection.
  local function peer(server)
    poll_until(function() return next(server.connections) end, "a connection")
    return (next(server.connections))
  end

  local function echo(request)
    return { body = request.body and request.body:string() or request.path }
  end

  setup(function()
    treadle.fd()
    serving({ handler = echo }, function(server)
      local client = connect(server.port)
      client:ask("/")
      client:close()
    end)
    done = helpers.watch()
  end)

  teardown(helpers.clean)

  after_each(function()
    app = nil
  end)

  describe("reads", function()
    it("what a request's head says", function()
      local request = message.parse("POST http://h:1/a%20b?x=1%2B1&y=a+b&z HTTP/1.1\r\nHOST: h\r\n"
        .. "Content-Length: 007\r\nA:  1 \t\r\na: 2\r\nExpect: 100-Continue\r\n")
      assert.same({
        method = "POST", path = "/a b", query = { x = "1+1", y = "a b", z = "" }, length = 7,
        headers = { host = "h", ["content-length"] = "007", a = "1, 2", expect = "100-Continue" },
        keep_alive = true, expects = true, is_old = false,
      }, request)
      local closing = "GET / HTTP/1.1\r\nHost: h\r\nConnection: a, Close\r\n"
      assert.is_false(message.parse(closing).keep_alive)
      assert.is_false(message.parse("GET / HTTP/1.0\r\n").keep_alive)
      assert.is_true(message.parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n").keep_alive)
    end)

    local refused = {
      { 400, "GET /" }, { 400, "GET / HTTP/1.1" }, { 400, "GET  / HTTP/1.1\r\n" .. HEAD },
      { 400, "G(T / HTTP/1.1\r\n" .. HEAD }, { 400, "GET /\0 HTTP/1.1\r\n" .. HEAD },
      { 400, " GET / HTTP/1.1\r\n" .. HEAD }, { 400, "GET / HTTP/1.1\r\n" },
      { 400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n" },
      { 400, "GET nothing HTTP/1.1\r\n" .. HEAD }, { 400, "GET /%zz HTTP/1.1\r\n" .. HEAD },
      { 400, "GET /%4 HTTP/1.1\r\n" .. HEAD }, { 400, "GET /?a=% HTTP/1.1\r\n" .. HEAD },
      { 400, "GET / HTTP/1.1\r\nHost : h\r\n" },
      { 400, "GET / HTTP/1.1\r\nHost: h\r\n folded\r\n" },
      { 400, "GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n" },
      { 400, "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n" },
      { 400, "GET / HTTP/1.1\r\nHost: h\r\nX: a\nY: b\r\n" },
      { 400, "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n" },
      { 400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n" },
      { 400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n" },
      { 400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x1\r\n" },
      { 400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n" },
      { 413, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n" },
      { 400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n" },
      { 400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n" },
      { 411, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n" },
      { 501, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n" },
      { 417, "POST / HTTP/1.1\r\nHost: h\r\nExpect: money\r\n" },
      { 431, "GET / HTTP/1.1\r\nHost: h\r\n" .. ("X: 1\r\n"):rep(100) },
      { 505, "GET / HTTP/2.0\r\n" .. HEAD }, { 505, "GET / HTTP/0.9\r\n" .. HEAD },
    }
    for i, case in ipairs(refused) do
      it(("that a head is refused with %d (%d)"):format(case[1], i), function()
        assert.same({ nil, case[1] }, { message.parse(case[2]) })
      end)
    end

    it("a long line of blanks in time that grows as it does", function()
      local line = "GET / HTTP/1.1\r\nX:" .. (" "):rep(1e6) .. "\1\r\n"
      assert.same({ nil, 400 }, { message.parse(line) }) -- a square of that would not end
    end)

    it("requests that arrive in one packet, and answers them in order", function()
      local held, release = treadle.future()
      serving({
        handler = function(request)
          if request.path == "/1" then
            held:await()
          end
          return echo(request)
        end,
      }, function(server)
        local client, text = connect(server.port), {}
        for i = 1, 5 do
          text[i] = ("%s /%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s"):format(
            i % 2 == 0 and "POST" or "GET", i, i % 2 == 0 and 3 or 0,
            i % 2 == 0 and "b" .. i .. "b" or "")
        end
        client:send(table.concat(text))
        poll_until(function() return server.counts.requests == 1 end)
        assert.equal(1, server.counts.requests) -- the others wait for the first
        release()
        for i = 1, 5 do
          assert.equal(i % 2 == 0 and "b" .. i .. "b" or "/" .. i, client:response().body)
        end
        client:close()
      end)
    end)

    it("a request that is cut in two anywhere", function()
      serving({ handler = echo }, function(server)
        local head = "\r\nPOST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"
        local text = head .. "hello"
        local client = connect(server.port)
        local connection = peer(server)
        for cut = 1, #text - 1 do
          client:send(text:sub(1, cut))
          poll_until(function() -- it has taken all that and waits for more
            local left = #connection.input - connection.at + 1
            return connection.reading and not connection.idle
              and left == (cut >= #head and 0 or cut >= 2 and cut - 2 or cut)
          end, "the first part")
          client:send(text:sub(cut + 1))
          assert.equal("hello", client:response().body)
          poll_until(function() return connection.idle end)
        end
        client:close()
      end)
    end)

    it("a request byte by byte", function()
      serving({ handler = echo }, function(server)
        local client = connect(server.port)
        for c in ("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"):gmatch(".") do
          client:send(c)
        end
        assert.equal("hello", client:response().body)
        client:close()
      end)
    end)

    it("a body after it has said that it wants it", function()
      serving({ handler = echo }, function(server)
        local client = connect(server.port)
        client:send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n"
          .. "Expect: 100-continue\r\n\r\n")
        assert.equal(100, client:response().status)
        client:send("ab")
        assert.equal("ab", client:response().body)
        client:close()
      end)
    end)
  end)

  describe("refuses", function()
    local function refusal(options, text, status)
      options.handler = echo
      options.linger_timeout = helpers.TIMEOUT
      serving(options, function(server)
        local client = connect(server.port)
        local sent = client:send(text, true)
        local response = client:response()
        assert.equal(status, response and response.status)
        assert.equal("close", response.headers.connection)
        assert.is_nil(client:response())
        assert.is_nil(sent:await()) -- it is not reset, which might lose the answer
        assert.equal("end of file", client.ended)
        client:close()
        assert.equal(0, server.counts.requests)
        assert.equal(1, server.counts.refused)
      end)
    end

    it("a head that is too long, which never ends", function()
      refusal({ max_head = 1000 }, "GET / HTTP/1.1\r\nX: " .. ("x"):rep(2000), 431)
    end)

    it("a line that is too long", function()
      refusal({ max_head = 1000 }, "GET /" .. ("x"):rep(2000), 414)
    end)

    it("a body that is too long, of which the client sends more than anybody reads", function()
      refusal({ max_body = 1000 }, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n"
        .. ("x"):rep(4e6), 413)
    end)

    it("a body of unknown length", function()
      refusal({}, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", 411)
    end)

    it("lines that end otherwise", function()
      refusal({}, "GET / HTTP/1.1\nHost: h\n\n", 400)
    end)

    it("a request that does not end in time", function()
      refusal({ receive_timeout = 0.02 }, "GET / HTTP/1.1\r\nHost: h\r\n", 408)
      refusal({ receive_timeout = 0.02, min_rate = 1e6 },
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx", 408)
    end)

    it("more connections than it may have", function()
      serving({ handler = echo, max_connections = 1 }, function(server)
        local first = connect(server.port)
        peer(server)
        local second = connect(server.port)
        local response = second:response()
        assert.same({ 503, "1" }, { response.status, response.headers["retry-after"] })
        assert.is_nil(second:response())
        second:close()
        assert.equal("/x", first:ask("/x").body)
        first:close()
      end)
    end)
  end)

  describe("with a client that", function()
    it("says nothing, closes the connection after a while", function()
      serving({ handler = echo, idle_timeout = 0.02 }, function(server)
        local client = connect(server.port)
        assert.is_nil(client:response())
        client:close()
      end)
    end)

    it("wants one answer, closes after that", function()
      serving({ handler = echo }, function(server)
        for _, text in ipairs {
          "GET /x HTTP/1.0\r\n\r\n", "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        } do
          local client = connect(server.port)
          client:send(text .. text)
          assert.equal("/x", client:response().body)
          assert.is_nil(client:response())
          client:close()
        end
        assert.equal(2, server.counts.requests)
      end)
    end)

    it("does not read, makes no more answers than the first", function()
      local big = ("0123456789abcdef"):rep(2 ^ 20)
      serving({ handler = function() return { body = big } end }, function(server)
        local client = connect(server.port)
        client:send(("GET / HTTP/1.1\r\nHost: h\r\n\r\n"):rep(3))
        local connection = peer(server)
        poll_until(function() return connection.wake and not connection.reading end, "a write")
        assert.equal(1, server.counts.requests)
        for _ = 1, 3 do
          assert.is_true(client:response().body == big)
        end
        client:close()
      end)
    end)

    it("does not read for too long, gives it up", function()
      local big = treadle.buffer("uint8_t", 2 ^ 24)
      local options = { write_timeout = 0.02, linger_timeout = 0.02 }
      options.handler = function() return { body = big } end
      serving(options, function(server)
        local client = connect(server.port)
        client:send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        poll_until(function() return server.counts.requests == 1 end)
        poll_until(function() return server.counts.connections == 0 end)
        client:close()
      end)
    end)

    it("sends and sends, stops to read while it answers", function()
      local held, release = treadle.future()
      serving({
        handler = function(request)
          held:await()
          return echo(request)
        end,
      }, function(server)
        local client = connect(server.port)
        local n = 10000
        client:send(("GET /x HTTP/1.1\r\nHost: h\r\n\r\n"):rep(n)
          .. "GET /x HTTP/1.0\r\n\r\n", true)
        local connection = peer(server)
        poll_until(function() return connection.paused end)
        assert.is_true(#connection.input < 2 ^ 18)
        release()
        repeat
          local more = client:more()
        until not more
        assert.equal(n + 1, select(2, client.input:gsub("\r\n\r\n/x", "")))
        assert.equal(n + 1, server.counts.requests)
        client:close()
      end)
    end)

    it("goes away without reading, notices no signal", function()
      serving({ handler = function() return { body = ("x"):rep(1e6) } end }, function(server)
        for i = 1, 20 do
          local client = connect(server.port)
          client:send(("GET / HTTP/1.1\r\nHost: h\r\n\r\n"):rep(5))
          client:close(i % 2 == 0)
        end
        poll_until(function()
          return server.counts.accepted == 20 and server.counts.connections == 0
        end)
        assert.same({}, errors)
      end)
    end)

    it("has ended its side, answers what needs no task", function()
      serving({ handler = echo }, function(server)
        local client = connect(server.port)
        client:send(("GET /x HTTP/1.1\r\nHost: h\r\n\r\n"):rep(3))
        client:shutdown()
        for _ = 1, 3 do
          assert.equal("/x", client:response().body)
        end
        assert.is_nil(client:response())
        client:close()
      end)
    end)

    it("has ended its side and waits, answers that, too, if told so", function()
      serving_app({ http = { half_closed = true } }, function()
        local client = connect(app.server.port)
        client:send("GET /hash?rounds=20000&salt=x HTTP/1.1\r\nHost: h\r\n\r\n")
        client:shutdown()
        assert.equal(200, client:response().status)
        assert.is_nil(client:response())
        client:close()
      end)
    end)
  end)

  describe("'s handlers", function()
    it("may raise: the client is told 500 and no more, and the connection goes on", function()
      serving({
        handler = function(request)
          return request.path == "/bad" and error "secret" or echo(request)
        end,
      }, function(server)
        local client = connect(server.port)
        local response = client:ask("/bad")
        assert.same({ 500, "" }, { response.status, response.body })
        assert.equal(1, #errors)
        assert.matches("secret", errors[1])
        assert.equal("/x", client:ask("/x").body)
        client:close()
      end)
    end)

    it("cannot split a response by a header", function()
      assert.has_error(function() message.head(200, { A = "1\r\nB: 2" }, 0, true) end)
    end)

    it("are found by path and method", function()
      serving_app({}, function()
        local client = connect(app.server.port)
        assert.equal(404, client:ask("/nothing").status)
        local response = client:ask("/page", "DELETE")
        assert.same({ 405, "GET, HEAD" }, { response.status, response.headers.allow })
        assert.equal("GET, HEAD, POST", client:ask("/hash", "PUT", "x").headers.allow)
        response = client:ask("/health", "HEAD")
        assert.same({ 200, "3", "" }, { response.status, response.headers["content-length"],
          response.body })
        assert.equal("ok\n", client:ask("/health").body)
        assert.matches('^{"heap":%d+,"pool":{"cancelled":0,.*"server":{"200":2,',
          client:ask("/stats").body)
        for _, target in ipairs { "/hash?rounds=0", "/hash?rounds=1e3", "/hash?rounds=",
          "/page?rows=x", "/thumbnail?size=99999" } do
          assert.equal(400, client:ask(target).status)
        end
        assert.equal(0, app.pool:stats().submitted)
        client:close()
      end)
    end)
  end)

  describe("'s tasks", function()
    it("hash as others do", function()
      serving_app({}, function()
        local client = connect(app.server.port)
        local response = client:ask("/hash?rounds=4096&salt=salt", "POST", "password")
        assert.matches("c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a",
          response.body)
        response = client:ask("/hash?rounds=2&salt=salt", "POST", "password")
        assert.matches("ae4d0c95af6b46d32d0adff928f06dd02a303f8ef3c251dfd6e2d85a95474c43",
          response.body)
        local key = ("passwordPASSWORDpassword"):rep(4)
        local long = client:ask("/hash?rounds=1&salt=s", "POST", key).body
        assert.are_not.equal(long, client:ask("/hash?rounds=1&salt=s", "POST", key .. "x").body)
        client:close()
      end)
    end)

    it("make a picture smaller by the means of boxes", function()
      serving_app({}, function()
        local client = connect(app.server.port)
        local ppm = "P6 # a comment\n4 2\n255\n" .. string.char(
          0, 0, 0, 10, 20, 30, 100, 100, 100, 200, 200, 200,
          20, 40, 60, 30, 60, 90, 100, 100, 100, 0, 0, 0)
        local response = client:ask("/thumbnail?size=2", "POST", ppm)
        assert.equal("image/png", response.headers["content-type"])
        assert.is_true(response.body == png.encode(2, 1, string.char(15, 30, 45, 100, 100, 100)))
        response = client:ask("/thumbnail?size=60")
        assert.equal("\137PNG\r\n\26\n\0\0\0\13IHDR\0\0\0\60\0\0\0\45", response.body:sub(1, 24))
        for _, bad in ipairs { "GIF89a", "P6", "P6\n4 2\n255\n" .. ("x"):rep(23),
          "P6\n4 2\n65535\n", "P6\n999999 999999\n255\n", "P6\n0 0\n255\n" } do
          assert.equal(415, client:ask("/thumbnail", "POST", bad).status)
        end
        client:close()
      end)
    end)

    it("render pages, and escape what they are given", function()
      serving_app({}, function()
        local client = connect(app.server.port)
        local body = client:ask("/page?rows=2&title=%3Cb%3E%26").body
        assert.matches("<h1>&lt;b&gt;&amp;</h1>", body, 1, true)
        assert.equal(2, select(2, body:gsub("<tr>", "")))
        client:close()
      end)
    end)

    it("have a time limit: 504, and the worker is free again", function()
      serving_app({ timeout = 0.02 }, function()
        local client = connect(app.server.port)
        assert.equal(504, client:ask(ENDLESS).status)
        assert.equal(1, app.pool:stats().failed)
        app.timeout = helpers.TIMEOUT
        assert.equal(200, client:ask("/hash?rounds=1").status)
        client:close()
      end)
    end)

    it("are refused when the queue is full: 503, and when to come again", function()
      serving_app({ queue = 0 }, function()
        local first, second = connect(app.server.port), connect(app.server.port)
        first:send(("GET %s HTTP/1.1\r\nHost: h\r\n\r\n"):format(ENDLESS))
        poll_until(function() return app.pool:stats().running == 1 end)
        local response = second:ask("/page")
        assert.same({ 503, "1" }, { response.status, response.headers["retry-after"] })
        assert.equal("ok\n", second:ask("/health").body) -- what is cheap is answered all the same
        first:close()
        app.pool:drained():await()
        assert.equal(200, second:ask("/page").status)
        second:close()
      end)
    end)

    for name, close in pairs {
      ["goes away"] = function(client) client:close() end,
      ["resets the connection"] = function(client) client:close(true) end,
      ["ends its side"] = function(client) client:shutdown() end,
    } do
      it("are cancelled when the client " .. name, function()
        serving_app({}, function()
          local client = connect(app.server.port)
          client:send(("GET %s HTTP/1.1\r\nHost: h\r\n\r\n"):format(ENDLESS):rep(2))
          poll_until(function() return app.pool:stats().running == 1 end)
          close(client)
          app.pool:drained():await()
          local stats = app.pool:stats()
          assert.same({ 1, 1, 0 }, { stats.submitted, stats.cancelled, stats.running })
          poll_until(function() return app.server.counts.connections == 0 end)
          assert.equal(1, app.server.counts.gone)
          if not client.socket:is_closing() then
            client:close()
          end
        end)
      end)
    end
  end)

  it("survives forged requests", function()
    serving_app({ timeout = 5, http = { receive_timeout = 0.01, linger_timeout = 1 } }, function()
      local seed = os.time()
      print("# seed " .. seed)
      math.randomseed(seed)
      local pieces = {
        "GET", "POST", "HEAD", " ", "/", "/hash?rounds=1", "/thumbnail?size=1", "?", "%41", "%",
        "HTTP/1.1", "HTTP/1.0", "\r\n", "\n", "\r", "\r\n\r\n", ":", "Host: h\r\n", "5",
        "0", "-1", "Content-Length: ", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n",
        "Expect: 100-continue\r\n", "\0",
        "\255", "P6 1 1 255 abc", ("y"):rep(5000), "Connection: keep-alive\r\n", "\t",
        "GET /page?rows=1 HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /thumbnail HTTP/1.1\r\nHost: h\r\nContent-Length: 14\r\n\r\nP6 1 1 255 abc",
      }
      local valid = { [100] = true }
      for status in pairs(message.REASONS) do
        valid[status] = true
      end
      for i = 1, 400 do
        local text = {}
        for j = 1, math.random(1, 12) do
          text[j] = pieces[math.random(#pieces)]
        end
        text = table.concat(text)
        local at = math.random(#text)
        if i % 3 == 0 then
          text = text:sub(1, at - 1) .. string.char(math.random(0, 255)) .. text:sub(at + 1)
        end
        local client = connect(app.server.port)
        client:send(text, true)
        if i % 4 ~= 0 then -- else it goes away at once
          client:shutdown()
          repeat
            local more = client:more()
          until not more
          for status in client.input:gmatch("HTTP/1.1 (%d+) ") do
            assert.is_true(valid[tonumber(status)], status)
          end
        end
        client:close(i % 8 == 0)
      end
      local client = connect(app.server.port)
      assert.equal("ok\n", client:ask("/health").body)
      client:close()
    end)
  end)

  describe("when it ends", function()
    it("answers what it was asked, and takes nothing more", function()
      serving_app({}, function()
        local idle, busy = connect(app.server.port), connect(app.server.port)
        idle:ask("/health")
        local held, release = treadle.future()
        local run = app.run
        app.run = function(...)
          held:await()
          return run(...)
        end
        busy:send(("GET /hash?rounds=1 HTTP/1.1\r\nHost: h\r\n\r\n"):rep(2))
        poll_until(function() return app.server.counts.requests == 2 end)
        local ended = treadle.spawn(app.close, app)
        assert.is_nil(idle:response())
        assert.same({ nil, "ECONNREFUSED" }, { connect(app.server.port) })
        assert.equal("pending", ended:state())
        release()
        local response = busy:response()
        assert.same({ 200, "close" }, { response.status, response.headers.connection })
        assert.is_nil(busy:response())
        ended:await()
        assert.equal(2, app.server.counts.requests)
        idle:close()
        busy:close()
      end)
    end)

    it("gives up what takes longer than its grace", function()
      serving_app({}, function()
        local computing, sending = connect(app.server.port), connect(app.server.port)
        sending:send("GET / HTT")
        computing:send(("GET %s HTTP/1.1\r\nHost: h\r\n\r\n"):format(ENDLESS))
        poll_until(function() return app.pool:stats().running == 1 end)
        app:close(0.01)
        assert.equal(1, app.pool:stats().cancelled)
        assert.is_nil(computing:response())
        assert.is_nil(sending:response())
        computing:close()
        sending:close()
      end)
    end)
  end)

  it("leaves nothing after 100,000 requests #resident", function()
    local BATCH, LIMIT = 1000, 2 ^ 20
    serving({ handler = echo }, function(server)
      local function ask(n)
        for _ = 1, n / BATCH do
          local client = connect(server.port)
          client:send(("GET /x HTTP/1.1\r\nHost: h\r\n\r\n"):rep(BATCH - 1)
            .. "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true)
          local bytes = 0
          while client:more() do
            bytes = bytes + #client.input
            client.input = ""
          end
          assert.is_true(bytes > BATCH * 100)
          client:close()
        end
        poll_until(function() return server.counts.connections == 0 end)
        require("jit").flush()
        local resident = helpers.resident()
        return collectgarbage("count") * 1024, resident
      end
      local heap, resident = ask(20000)
      local heap_after, resident_after = ask(100000)
      assert.equal(120000, server.counts.requests)
      assert.is_true(heap_after - heap < LIMIT, heap_after - heap)
      assert.is_true(resident_after - resident < 2 * LIMIT, resident_after - resident)
    end)
  end)

  describe("as a program", function()
    local path = examples .. "/server/main.lua"
    local child

    after_each(function()
      if child then
        child.kill("sigkill") -- where a test has failed
      end
    end)

    -- Start it, and wait for its first line.
    local function start(program, ...)
      child = start_child(program, { path, "--port", "0", "--threads", "1", ... })
      poll_until(function() return child.out:find "\n" or child.is_silent end, "its first line")
      child.port = tonumber(child.out:match "^listening on http://127%.0%.0%.1:(%d+), ")
    end

    -- What it has said of errors, its exit code and signal.
    local function finished()
      assert.is_true(child.ended:wait(helpers.TIMEOUT))
      poll_until(function() return child.is_silent end)
      return { child.err, child.ended:await() }
    end

    for program, signal in pairs { luajit = "sigterm", treadle = "sigint" } do
      it("answers what it was asked when it is told to end, run by " .. program, function()
        start(program)
        local client, other = connect(child.port), connect(child.port)
        client:send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
          .. "GET /hash?rounds=20000 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert.equal(200, client:response().status) -- and then it goes on with the next
        assert.equal(200, other:ask("/health").status)
        child.kill(signal)
        assert.equal(200, client:response().status)
        assert.is_nil(client:response())
        assert.is_nil(other:response())
        assert.same({ "", 0, 0 }, finished())
        assert.matches("\n" .. signal:upper() .. ": ended after 3 requests\n$", child.out)
        client:close()
        other:close()
      end)

      it("survives clients that do not wait for their answers, run by " .. program, function()
        start(program)
        for i = 1, 10 do
          local client = connect(child.port)
          client:send(("GET /page?rows=20000 HTTP/1.1\r\nHost: h\r\n\r\n"):rep(2))
          if i % 2 == 0 then
            client:more()
          end
          client:close(true)
        end
        local client = connect(child.port)
        assert.equal("ok\n", client:ask("/health").body)
        client:close()
        child.kill("sigterm")
        assert.same({ "", 0, 0 }, finished())
      end)
    end

    it("runs everything in one thread with --inline", function()
      start("luajit", "--inline")
      assert.matches(", all in one thread\n$", child.out)
      local client = connect(child.port)
      assert.matches("c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a",
        client:ask("/hash?rounds=4096&salt=salt", "POST", "password").body)
      assert.equal(415, client:ask("/thumbnail", "POST", "GIF89a").status)
      assert.equal("\137PNG", client:ask("/thumbnail?size=9").body:sub(1, 4))
      assert.equal(200, client:ask("/page").status)
      client:close()
      child.kill("sigterm")
      assert.same({ "", 0, 0 }, finished())
    end)

    it("says what is wrong with its arguments", function()
      for _, words in ipairs { "--port 65536", "--port", "--threads 0", "--queue 1.5", "--nothing",
        "--timeout 0", "x" } do
        local out, err, code = helpers.shell("luajit " .. helpers.quote(path) .. " " .. words)
        assert.same({ "", 2 }, { out, code })
        assert.matches("^server: .*\nusage: ", err)
      end
    end)

    it("ends with 1 if its address is taken", function()
      serving({ handler = echo }, function(server)
        start("luajit", "--port", server.port)
        local expected = ("server: cannot listen on 127.0.0.1:%d: EADDRINUSE: "):format(server.port)
        local outcome = finished()
        assert.equal(expected, outcome[1]:sub(1, #expected))
        assert.same({ 1, 0 }, { outcome[2], outcome[3] })
      end)
    end)
  end)

  it("leaves no thread and no descriptor", function()
    done()
  end)
end)
