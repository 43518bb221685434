--- treadle inside nginx: real worker processes, real requests. `make hosts` unpacks nginx and its
-- Lua module into build/nginx.
local helpers = require "helpers"
local lfs = require "lfs"
local treadle = require "treadle"
local uv = require "luv"

local quote = helpers.quote
local root = lfs.currentdir()
local HOST = "127.0.0.1"
local CHEAP = 20 -- requests that are answered while another one is under way

--- Where nginx is: as unpacked, or as installed.
local unpacked = lfs.attributes(root .. "/build/nginx/usr/sbin/nginx") and root .. "/build/nginx"
  or ""
local program = unpacked .. "/usr/sbin/nginx"
local module_path = assert(package.searchpath("treadle", package.cpath)):match("^(.*)/")

local TASKS = [[
  local M = {}
  function M.add(a, b) return a + b end
  function M.hash(password) return "hash of " .. password end
  function M.boom() error("no such luck", 0) end
  function M.spin() while true do end end

  --- Computes until a file is there.
  function M.until_file(path)
    local n = 0
    while true do
      n = n + 1
      local file = n % 10000 == 0 and io.open(path)
      if file then
        file:close()
        return n
      end
    end
  end
  return M
]]

local HEAD = [[
load_module %s/usr/lib/nginx/modules/ndk_http_module.so;
load_module %s/usr/lib/nginx/modules/ngx_http_lua_module.so;
daemon off;
worker_processes %d;
pid nginx.pid;
error_log error.log notice;
events { worker_connections 512; }
]]

--- What a block of http begins with that runs in a folder of its own.
local PLACE = [[
http {
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  access_log off;
  lua_package_cpath "%s/?.so;;";
]]

local SEARCH = [[
  lua_package_path "$prefix/?.lua;%s/usr/share/lua/5.1/?.lua;;";
]]

local START = [[
  init_by_lua_block {
    treadle = require "treadle"
    tried = false
    function note(word)
      local file = assert(io.open(ngx.config.prefix() .. "notes", "a"))
      file:write(word, "\n")
      file:close()
    end
  }
  init_worker_by_lua_block {
    joint = treadle.attach()
    pool = treadle.pool("tasks", { threads = 2 })
    assert(pool.call.add(1, 2):await() == 3) -- before anything is served
  }
]]

--- A port that nobody listens on now.
local function free_port()
  local socket = uv.new_tcp()
  assert(socket:bind(HOST, 0))
  local port = socket:getsockname().port
  socket:close()
  uv.run "nowait"
  return port
end

-- --- a server ------------------------------------------------------------------------------------

local servers = {} -- those that run

--- Processes whose parent is nginx's master.
local function workers(self)
  local text = helpers.read(("/proc/%d/task/%d/children"):format(self.pid, self.pid))
  local list = {}
  for id in text:gmatch("%d+") do
    list[#list + 1] = id
  end
  return list
end

--- @param locations text of the server block
-- @param[opt] options `start`: text of the http block; `processes`; `http`: a whole http block in
-- the place of all that, with "listen 8080;" in it
local function serve(locations, options)
  options = options or {}
  local self = { folder = helpers.new_path ".nginx", port = free_port() }
  assert(lfs.mkdir(self.folder))
  assert(os.execute("chmod 777 " .. quote(self.folder) .. " " .. quote(helpers.scratch())) == 0)
  helpers.write(self.folder .. "/tasks.lua", TASKS)
  local address, place = ("listen %s:%d;"):format(HOST, self.port), PLACE:format(module_path)
  local search = SEARCH:format(unpacked)
  local http = options.http
    and options.http:gsub("^http {\n", function() return place end)
      :gsub(" *lua_package_path[^\n]*\n", function() return search end)
      :gsub("listen 8080;", function() return address end)
    or place .. search .. "lua_check_client_abort on;\n" .. (options.start or START)
      .. ("server { %s\n%s\n}\n}\n"):format(address, locations)
  helpers.write(self.folder .. "/nginx.conf", HEAD:format(unpacked, unpacked,
    options.processes or 1) .. http)
  local future, resolve = treadle.future()
  self.ended = future
  self.process, self.pid = assert(uv.spawn(program, {
    args = { "-p", self.folder, "-c", "nginx.conf", "-e", "error.log" },
    env = { "LD_LIBRARY_PATH=" .. unpacked .. "/usr/lib/x86_64-linux-gnu", "PATH=/usr/bin:/bin" },
    stdio = { nil, 1, 2 },
  }, function(code, signal) resolve(code, signal) end))
  servers[self] = true
  helpers.poll_until(function()
    return self.ended:state() ~= "pending" or #workers(self) == (options.processes or 1)
  end, "nginx has started")
  assert.same("pending", self.ended:state())
  return self
end

--- Lines of the log that tell of trouble.
local function complaints(self)
  local list = {}
  for _, line in ipairs(helpers.lines(self.folder .. "/error.log")) do
    if not line:find("%[notice%]") then
      list[#list + 1] = line
    end
  end
  return list
end

--- Send it a signal, by default the one that lets it finish; it must end well.
local function stop(self, signal)
  local children = workers(self)
  assert(uv.kill(self.pid, signal or "sigquit"))
  assert(self.ended:wait(helpers.TIMEOUT), "nginx does not end")
  servers[self] = nil
  self.process:close()
  assert.same(0, (self.ended:await()))
  for _, id in ipairs(children) do
    assert.is_nil(lfs.attributes("/proc/" .. id), "a worker process is left")
  end
end

-- --- a client ------------------------------------------------------------------------------------

--- Ask for a path.
-- @return future of status and body
-- @treturn function goes away before there is an answer
local function ask(self, path)
  local future, resolve, reject = treadle.future()
  local socket, answer = uv.new_tcp(), ""
  local function finish(fn, ...)
    if not socket:is_closing() then
      socket:close()
    end
    fn(...)
  end
  socket:connect(HOST, self.port, function(err)
    if err then
      return finish(reject, err)
    end
    socket:write(("GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):format(path))
    socket:read_start(function(read_err, data)
      if data then
        answer = answer .. data
        return
      elseif read_err or answer == "" then
        return finish(reject, read_err or "no answer")
      end
      local status, body = answer:match("^HTTP/1.1 (%d+).-\r\n\r\n(.*)$")
      if answer:lower():find("transfer-encoding: chunked", 1, true) then
        body = body:gsub("%x+\r\n(.-)\r\n", "%1", 1):gsub("0\r\n\r\n$", "")
      end
      finish(resolve, tonumber(status), (body:gsub("\n$", "")))
    end)
  end)
  return future, function() finish(resolve, 0, "gone") end
end

local function get(self, path)
  local future = ask(self, path)
  assert(future:wait(helpers.TIMEOUT), "no answer to " .. path)
  local status, body = future:await()
  return body, status
end

local function noted(self)
  return helpers.lines(self.folder .. "/notes")
end

--- Wait until the code of a request has noted a word.
local function await_note(self, word)
  helpers.poll_until(function()
    for _, line in ipairs(noted(self)) do
      if line == word then
        return true
      end
    end
  end, word .. " is noted")
end

local function sockets_of_ours()
  return select(1, helpers.shell("ls -d /tmp/treadle-??????/s 2>/dev/null | wc -l"))
end

describe("treadle in nginx", function()
  local server

  teardown(function()
    for self in pairs(servers) do
      uv.kill(self.pid, "sigkill")
      for _, id in ipairs(workers(self)) do
        uv.kill(tonumber(id), "sigkill")
      end
    end
    helpers.clean()
  end)

  before_each(function()
    server = nil
  end)

  --- Every test's server ends well, and has nothing to complain of but what was expected.
  local function ends_well(expected)
    stop(server)
    local list = complaints(server)
    for i, line in ipairs(list) do
      if expected and line:find(expected) then
        list[i] = nil
      end
    end
    assert.same({}, list)
  end

  it("awaits in every phase that may wait, and says where none can", function()
    server = serve([[
      location = /ok {
        rewrite_by_lua_block { ngx.ctx.rewrite = pool.call.add(1, 0):await() }
        access_by_lua_block { ngx.ctx.access = pool.call.add(2, 0):await() }
        content_by_lua_block {
          ngx.say(ngx.ctx.rewrite, ngx.ctx.access, pool.call.add(3, 0):await())
        }
      }
      location = /not {
        set_by_lua_block $tried { tried = { select(2, pcall(treadle.sleep, 1)) } return "" }
        header_filter_by_lua_block { table.insert(tried, (select(2, pcall(treadle.sleep, 1)))) }
        body_filter_by_lua_block { tried[3] = select(2, pcall(treadle.sleep, 1)) }
        log_by_lua_block {
          tried[4] = select(2, pcall(function() pool.call.add(1, 2):await() end))
        }
        content_by_lua_block { ngx.say("sent") }
      }
      location = /told { content_by_lua_block { ngx.say(table.concat(tried, "\n")) } }
      location = /timer {
        content_by_lua_block {
          local semaphore = require("ngx.semaphore").new()
          local got
          ngx.timer.at(0, function() got = pool.call.add(4, 0):await() semaphore:post() end)
          semaphore:wait(10)
          ngx.say(got)
        }
      }
    ]])
    assert.same("123", get(server, "/ok"))
    assert.same("4", get(server, "/timer"))
    assert.same("sent", get(server, "/not"))
    local told = get(server, "/told")
    for _, phase in ipairs { "set", "header_filter", "body_filter", "log" } do
      assert.matches("nginx: cannot wait in " .. phase .. "_by_lua", told, 1, true)
    end
    ends_well()
  end)

  it("runs the blocks of its page", function()
    local count = 0
    for block in helpers.read(helpers.folder .. "/../../docs/nginx.md")
      :gmatch "```nginx\n(.-)```" do
      count = count + 1
      server = block:find "^http {\n" and serve(nil, { http = block }) or serve(block)
      local path = assert(block:match "location = (%S+)", "there is nothing to ask for")
      assert.same("hash of abc", get(server, path .. "?password=abc"))
      ends_well()
    end
    assert.is_true(count >= 2)
  end)

  it("awaits in light threads, in coroutines of nginx's and in its own", function()
    server = serve [[
      location = /threads {
        content_by_lua_block {
          local list, sum = {}, 0
          for i = 1, 10 do
            list[i] = ngx.thread.spawn(function() return pool.call.add(i, i):await() end)
          end
          for i = 1, 10 do sum = sum + select(2, ngx.thread.wait(list[i])) end
          ngx.say(sum)
        }
      }
      location = /wrap {
        content_by_lua_block {
          local next_sum = coroutine.wrap(function(a)
            coroutine.yield(pool.call.add(a, 1):await())
            treadle.sleep(0.001)
            return pool.call.add(a, 2):await()
          end)
          ngx.say(next_sum(1), next_sum())
        }
      }
      location = /spawn {
        content_by_lua_block {
          local function numbers() for i = 1, 3 do coroutine.yield(i) end end
          local list, sum = {}, 0
          for i = 1, 10 do
            list[i] = treadle.spawn(function()
              local own = 0
              for n in coroutine.wrap(numbers) do own = own + n end
              treadle.sleep(0.001)
              for n in coroutine.wrap(numbers) do own = own + n end -- in nginx's timer now
              return own + pool.call.add(i, 0):await()
            end)
          end
          for i = 1, 10 do sum = sum + list[i]:await() end
          ngx.say(sum)
        }
      }
      location = /busy {
        content_by_lua_block {
          local is_over = false
          local busy = treadle.spawn(function()
            local n = 0
            while not is_over do treadle.sleep(0) n = n + 1 end
            return n
          end)
          for i = 1, 20 do ngx.sleep(0.001) end -- it leaves room for others
          is_over = true
          ngx.say(tostring(busy:await() > 0))
        }
      }
      location = /own {
        content_by_lua_block {
          ngx.say(treadle.spawn(function()
            local got, resolve = treadle.future()
            coroutine.wrap(function() resolve(pool.call.add(20, 22):await()) end)()
            return got:await()
          end):await())
        }
      }
      location = /callback {
        content_by_lua_block {
          local said
          pool.call.add(1, 1):and_then(function(two)
            said = { two, select(2, pcall(treadle.sleep, 1)) }
          end):await()
          ngx.say(said[1], " ", said[2])
        }
      }
      location = /group {
        content_by_lua_block {
          local sum = 0
          treadle.group(function(g)
            for i = 1, 5 do
              g:spawn(function()
                local n = pool.call.add(i, 0):await()
                sum = sum + n
              end)
            end
          end)
          ngx.say(sum)
        }
      }
      location = /shared {
        content_by_lua_block {
          local channel, mutex, sum = treadle.channel(1), treadle.mutex(), 0
          local sender = ngx.thread.spawn(function()
            for i = 1, 20 do channel:send(i) end
            channel:close()
          end)
          local adder = ngx.thread.spawn(function()
            mutex:with(function() treadle.sleep(0.001) sum = sum + 1000 end)
          end)
          for n in channel:iter() do mutex:with(function() sum = sum + n end) end
          ngx.thread.wait(adder)
          ngx.say(sum)
        }
      }
    ]]
    assert.same("110", get(server, "/threads"))
    assert.same("23", get(server, "/wrap"))
    assert.same("175", get(server, "/spawn"))
    assert.same("true", (get(server, "/busy")))
    assert.same("42", (get(server, "/own")))
    assert.same("2 nil", (get(server, "/callback"))) -- a callback has a coroutine of its own
    assert.same("15", get(server, "/group"))
    assert.same("1210", get(server, "/shared"))
    ends_well()
  end)

  it("says in coroutines of its own, which may outlive a request, that there is none", function()
    server = serve [[
      location = /try {
        content_by_lua_block {
          local calls = {
            function() return ngx.var.uri end,
            function() ngx.sleep(0) end,
            function() return ngx.socket.tcp() end,
            function() ngx.say("lost") end,
            function() return ngx.thread.spawn(print) end,
            function() return coroutine.wrap(function() return ngx.var.uri end)() end,
          }
          local said = {}
          for round = 1, 2 do
            for i, call in ipairs(calls) do
              local ok, err = treadle.spawn(function()
                if round == 2 then treadle.sleep(0.001) end -- in the timer from here on
                return call()
              end):pawait()
              said[#said + 1] = tostring(ok) .. " " .. (ok or err.message)
            end
          end
          ngx.say(table.concat(said, "\n"))
        }
      }
      location = /leave {
        content_by_lua_block {
          treadle.spawn(function()
            treadle.sleep(0.01)
            local ok = pcall(function() return ngx.var.uri end)
            note(tostring(ok))
          end)
          ngx.say("left")
        }
      }
    ]]
    local child = workers(server)[1]
    local lines = 0
    for line in (get(server, "/try")):gmatch("[^\n]+") do
      lines = lines + 1
      assert.matches("^false .*no request", line)
    end
    assert.same(12, lines)
    assert.same("left", (get(server, "/leave")))
    await_note(server, "false")
    assert.same({ child }, workers(server)) -- it has not crashed
    ends_well()
  end)

  it("serves others while a task computes, and nobody while the process does", function()
    server = serve [[
      location = /cheap { content_by_lua_block { note "cheap" ngx.say("cheap") } }
      location = /task {
        content_by_lua_block {
          note "begin"
          pool.call.until_file(ngx.config.prefix() .. ngx.var.arg_file):await()
          note "end"
          ngx.say("done")
        }
      }
      location = /inline {
        content_by_lua_block {
          note "inline"
          require("tasks").until_file(ngx.config.prefix() .. ngx.var.arg_file)
          note "end"
          ngx.say("done")
        }
      }
    ]]
    local heavy = ask(server, "/task?file=first")
    await_note(server, "begin")
    for _ = 1, CHEAP do
      assert.same("cheap", get(server, "/cheap"))
    end
    assert.same("pending", heavy:state())
    helpers.write(server.folder .. "/first", "")
    assert.same({ 200, "done" }, { heavy:await() })
    local order = noted(server)
    assert.same(CHEAP + 2, #order)
    assert.same({ "begin", "end" }, { order[1], order[#order] })

    heavy = ask(server, "/inline?file=second")
    await_note(server, "inline")
    local cheap = ask(server, "/cheap")
    helpers.write(server.folder .. "/second", "")
    assert.same({ 200, "done" }, { heavy:await() })
    assert.same({ 200, "cheap" }, { cheap:await() })
    order = noted(server)
    assert.same({ "inline", "end", "cheap" }, { unpack(order, #order - 2) })
    ends_well()
  end)

  it("hands on errors, and ends waits in time", function()
    server = serve [[
      location = /boom {
        content_by_lua_block {
          local ok, err = pool.call.boom():pawait()
          ngx.say(tostring(ok), " ", err.kind, " ", err.message)
        }
      }
      location = /late {
        content_by_lua_block {
          local ok, err = pool:run("spin", {}, { timeout = 0.05 }):pawait()
          if not ok and err.kind == "timeout" then return ngx.exit(504) end
        }
      }
      location = /wait {
        content_by_lua_block {
          local future = pool.call.spin()
          local settled = future:wait(0.05)
          local alive = pool.call.add(1, 1):await()
          future:cancel { force = true }
          ngx.say(tostring(settled), alive, " ", select(2, future:pawait()).kind)
        }
      }
      location = /sleep {
        content_by_lua_block {
          local start = treadle.now()
          treadle.sleep(0.03)
          ngx.say(tostring(treadle.now() - start >= 0.03))
        }
      }
      location = /full {
        content_by_lua_block {
          local small = treadle.pool("tasks", { threads = 1, max_queue = 1, on_full = "wait" })
          local sum, list = 0, {}
          for i = 1, 50 do list[i] = small.call.add(i, 0) end
          for i = 1, 50 do sum = sum + list[i]:await() end
          small:close()
          ngx.say(sum)
        }
      }
    ]]
    assert.same("false task no such luck", get(server, "/boom"))
    assert.same(504, (select(2, get(server, "/late"))))
    assert.same("false2 cancelled", get(server, "/wait"))
    assert.same("true", get(server, "/sleep"))
    assert.same("1275", get(server, "/full"))
    ends_well()
  end)

  it("cancels the task of a client that has gone, when told so", function()
    server = serve [[
      location = /spin {
        content_by_lua_block {
          local future = pool.call.spin()
          ngx.on_abort(function()
            future:cancel { reason = "gone", force = true }
            note "aborted"
            ngx.exit(499)
          end)
          note "begin"
          future:pawait()
        }
      }
      location = /stats {
        content_by_lua_block { local s = pool:stats() ngx.say(s.running, " ", s.cancelled) }
      }
    ]]
    local _, leave = ask(server, "/spin")
    await_note(server, "begin")
    leave()
    await_note(server, "aborted")
    assert.same("0 1", get(server, "/stats"))
    ends_well()
  end)

  it("outlives light threads that nginx has ended while they waited", function()
    server = serve [[
      location = /forget {
        content_by_lua_block {
          local future = pool.call.until_file(ngx.config.prefix() .. "go")
          ngx.ctx.future = future
          note "begin"
          future:await()
          note "never"
        }
      }
      location = /doze { content_by_lua_block { note "dozes" treadle.sleep(1e6) note "never" } }
      location = /add { content_by_lua_block { ngx.say(pool.call.add(ngx.var.arg_n, 1):await()) } }
      location = /collect { content_by_lua_block { collectgarbage() ngx.say(pool:stats().done) } }
    ]]
    local _, leave = ask(server, "/forget")
    await_note(server, "begin")
    leave()
    _, leave = ask(server, "/doze")
    await_note(server, "dozes")
    leave()
    for i = 1, 50 do -- these run in the coroutines that were ended
      assert.same(tostring(i + 1), get(server, "/add?n=" .. i))
    end
    get(server, "/collect")
    helpers.write(server.folder .. "/go", "")
    helpers.poll_until(function()
      return get(server, "/collect") == "52"
    end, "the task of the client that has gone ends")
    assert.same({ "begin", "dozes" }, noted(server))
    ends_well() -- the sleeper, which has gone, does not hold it up
  end)

  it("loses no request when it is told to reload, and leaves nothing behind", function()
    local before = sockets_of_ours()
    server = serve([[
      location = /add { content_by_lua_block { ngx.say(pool.call.add(ngx.var.arg_n, 1):await()) } }
      location = /slow {
        content_by_lua_block {
          note "begin"
          pool.call.until_file(ngx.config.prefix() .. "go"):await()
          ngx.say("slow")
        }
      }
    ]], { processes = 2 })
    local old = workers(server)
    assert.same(2, #old)
    local slow = ask(server, "/slow")
    await_note(server, "begin")
    local is_over, count = false, 0
    local clients = {}
    for c = 1, 8 do
      clients[c] = treadle.spawn(function()
        repeat
          local n = count
          count = count + 1
          local status, body = ask(server, "/add?n=" .. n):await()
          assert(status == 200 and tonumber(body) == n + 1, body)
        until is_over
      end)
    end
    for _ = 1, 3 do
      local known = table.concat(workers(server), " ")
      assert(uv.kill(server.pid, "sighup"))
      helpers.poll_until(function()
        local fresh = 0
        for _, id in ipairs(workers(server)) do
          fresh = fresh + (known:find(id, 1, true) and 0 or 1)
        end
        return fresh == 2
      end, "new worker processes")
      local target = count + 50
      helpers.poll_until(function() return count >= target end, "they serve")
    end
    is_over = true
    treadle.all(clients):await()
    assert.same("pending", slow:state()) -- its process is one of the first two
    helpers.write(server.folder .. "/go", "")
    assert.same({ 200, "slow" }, { slow:await() })
    helpers.poll_until(function() return #workers(server) == 2 end, "the old ones end")
    assert.same(before, sockets_of_ours())
    ends_well()
  end)

  it("answers what is under way when it is told to quit, and ends at once when told to stop",
    function()
      local text = [[
        location = /slow {
          content_by_lua_block {
            note "begin"
            pool.call.until_file(ngx.config.prefix() .. "go"):await()
            treadle.sleep(0.01) -- a wait that begins while the process ends
            ngx.say(treadle.spawn(function() treadle.sleep(0.01) return "slow" end):await())
          }
        }
        location = /ends {
          content_by_lua_block { note(ngx.worker.exiting() and "ends" or "not yet") ngx.say() }
        }
        location = /spin { content_by_lua_block { note "begin" pool.call.spin():await() } }
      ]]
      server = serve(text)
      local slow = ask(server, "/slow")
      await_note(server, "begin")
      local child = workers(server)[1]
      assert(uv.kill(server.pid, "sigquit"))
      helpers.poll_until(function()
        return helpers.read("/proc/" .. child .. "/cmdline"):find("shutting down")
      end, "the worker process is about to end")
      helpers.write(server.folder .. "/go", "")
      assert.same({ 200, "slow" }, { slow:await() })
      assert(server.ended:wait(helpers.TIMEOUT))
      servers[server] = nil
      assert.same(0, (server.ended:await()))
      assert.same({}, complaints(server))

      server = serve(text)
      local spin = ask(server, "/spin")
      await_note(server, "begin")
      stop(server, "sigterm")
      assert.is_false((spin:pawait()))
      assert.same({}, complaints(server))
    end)

  it("says in the process that serves that a pool was opened before the fork", function()
    server = serve([[
      location = / { content_by_lua_block { ngx.say(told) } }
    ]], { start = [[
      init_by_lua_block {
        treadle = require "treadle"
        told = tostring(select(2, pcall(treadle.attach, "nginx")))
        pool = treadle.pool("tasks", { threads = 1 })
      }
      init_worker_by_lua_block {
        told = told .. "\n" .. tostring(select(2, pool.call.add(1, 2):pawait()))
          .. "\n" .. tostring(select(2, pcall(treadle.pool, "tasks")))
      }
    ]] })
    local told = get(server, "/")
    assert.matches("do it in init_worker_by_lua: nginx forks after init_by_lua", told, 1, true)
    assert.matches("\nclosed: ", told)
    assert.matches("a forked process cannot run a pool", told)
    ends_well()
  end)

  it("detaches and attaches again, also with no folder for a socket", function()
    server = serve [[
      location = /again {
        content_by_lua_block {
          local sum = 0
          for i = 1, 20 do
            joint:detach()
            joint:detach()
            joint = treadle.attach(ngx)
            sum = sum + pool.call.add(i, 0):await()
          end
          ngx.say(sum, " ", select(2, pcall(treadle.attach, "openresty")))
        }
      }
      location = /blind {
        content_by_lua_block {
          local core = require "treadle.core"
          local peer_open = core.peer_open
          joint:detach()
          core.peer_open = function() end
          joint = treadle.attach "nginx"
          local sum = pool.call.add(40, 2):await()
          core.peer_open = peer_open
          ngx.say(sum)
        }
      }
    ]]
    local child = workers(server)[1]
    assert.matches("^210 .*attached to nginx already", (get(server, "/again")))
    local function descriptors()
      return helpers.shell(("ls /proc/%s/fd | wc -l"):format(child))
    end
    get(server, "/again")
    local count = descriptors()
    get(server, "/again")
    assert.same(count, descriptors())
    assert.same("42", get(server, "/blind"))
    ends_well("cannot wait on a socket %(no folder for a socket")
  end)

  it("keeps no descriptor and no memory of awaits", function()
    server = serve [[
      location = /add { content_by_lua_block { ngx.say(pool.call.add(1, 2):await()) } }
      location = /state {
        content_by_lua_block {
          collectgarbage()
          collectgarbage()
          ngx.say(collectgarbage("count"))
        }
      }
    ]]
    local child = workers(server)[1]
    local function load_it()
      local out, err, code = helpers.shell(("wrk -t1 -c16 -d1s --latency http://%s:%d/add"):format(
        HOST, server.port))
      assert.same(0, code, err)
      assert.is_nil(out:match("Socket errors[^\n]*"))
      assert.is_nil(out:match("Non%-2xx[^\n]*"))
      assert.is_true(tonumber(out:match("(%d+) requests in")) > 16)
      helpers.poll_until(function() -- wrk's connections have been closed
        return select(1, helpers.shell(("ls -l /proc/%s/fd | grep -c socket"):format(child)))
      end)
      return tonumber((get(server, "/state")))
    end
    load_it()
    local kilobytes = load_it()
    assert.is_true(load_it() < kilobytes + 100)
    ends_well()
  end)

  it("runs the example", function()
    local folder, port = helpers.new_path ".example", free_port()
    assert(lfs.mkdir(folder))
    assert(os.execute(("cp -r examples/nginx examples/sha256.lua %s && cd %s && mkdir -p nginx/run "
      .. "&& chmod -R a+rX . .. && chmod a+rwx nginx/run"):format(quote(folder), quote(folder)))
      == 0)
    local path = folder .. "/nginx/nginx.conf"
    helpers.write(path, (helpers.read(path):gsub("/usr/lib/nginx", unpacked .. "%0")
      :gsub("127%.0%.0%.1:8088", HOST .. ":" .. port)))
    local future, resolve = treadle.future()
    server = { folder = folder .. "/nginx", port = port, ended = future }
    server.process, server.pid = assert(uv.spawn(program, {
      args = { "-p", server.folder, "-c", "nginx.conf", "-e", "error.log" },
      env = { "LD_LIBRARY_PATH=" .. unpacked .. "/usr/lib/x86_64-linux-gnu", "PATH=/usr/bin:/bin",
        "LUA_PATH=" .. unpacked .. "/usr/share/lua/5.1/?.lua;;",
        "LUA_CPATH=" .. module_path .. "/?.so;;" },
    }, function(code) resolve(code) end))
    servers[server] = true
    helpers.poll_until(function()
      return helpers.read(server.folder .. "/run/nginx.pid") ~= ""
    end, "the example has started")
    local hash = get(server, "/hash?password=secret&rounds=1000")
    assert.matches("^%x+$", hash)
    assert.same(64, #hash)
    assert.same(hash, (get(server, "/inline?password=secret&rounds=1000")))
    assert.same("hello", get(server, "/"))
    assert.same(400, (select(2, get(server, "/hash?rounds=x"))))
    assert.matches("^process %d+: %d+ running", (get(server, "/stats")))
    ends_well()
  end)
end)
