--- A TCP server on luv whose lines are answered by tasks, and a client that asks and checks it:
-- `treadle examples/luv_server.lua`
--
-- What it shows: luv's sockets, timers and files beside treadle's `await`, in the host and in the
-- tasks (luv_tasks.lua, loaded by name), with no call of `uv.run` anywhere.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path -- the workers take this path over

local treadle = require "treadle"
local uv = require "luv"

local HOST = "127.0.0.1"
local PRIMES = {
  { n = "5000000", primes = "348513" },
  { n = "1000000", primes = "78498" },
  { n = "1000", primes = "168" },
  { n = "10", primes = "4" },
}

-- Call `on_line` with each line that arrives, and with nil at the end.
local function read_lines(socket, on_line)
  local rest = ""
  socket:read_start(function(err, data)
    assert(not err, err)
    if data then
      rest = (rest .. data):gsub("(.-)\r?\n", function(line)
        on_line(line)
        return ""
      end)
    else
      on_line(nil)
    end
  end)
end

-- Answer each line "N" with "N PRIMES", as soon as its task is done: small numbers overtake.
local function serve(pool)
  local server = uv.new_tcp()
  assert(server:bind(HOST, 0))
  assert(server:listen(16, function(listen_err)
    assert(not listen_err, listen_err)
    local socket = uv.new_tcp()
    server:accept(socket)
    read_lines(socket, function(line)
      if not line then
        socket:close()
        return
      end
      treadle.spawn(function()
        local n = tonumber(line)
        local answer = n and pool.call.count_primes(n):await() or "is no number"
        if not socket:is_closing() then
          socket:write(("%s %s\n"):format(line, answer))
        end
      end)
    end)
  end))
  return server, server:getsockname().port
end

-- Send all lines at once; a future of a table line -> answer.
local function ask(port, lines)
  local future, resolve, reject = treadle.future()
  local socket, answers, missing = uv.new_tcp(), {}, #lines
  socket:connect(HOST, port, function(err)
    if err then
      return reject(err)
    end
    read_lines(socket, function(line)
      local question, answer = line:match("^(%S+) (.*)$")
      print(("client: %8s -> %s"):format(question, answer))
      answers[question] = answer
      missing = missing - 1
      if missing == 0 then
        socket:close()
        resolve(answers)
      end
    end)
    socket:write(table.concat(lines, "\n") .. "\n")
  end)
  return future
end

local function main()
  local pool = treadle.pool("luv_tasks")
  local ticked, resolve_ticked = treadle.future()
  local ticks, timer = 0, uv.new_timer()
  timer:start(5, 5, function()
    ticks = ticks + 1
    resolve_ticked()
  end)

  local server, port = serve(pool)
  local lines = { "ten" }
  for i, row in ipairs(PRIMES) do
    lines[i + 1] = row.n
  end
  local answers = ask(port, lines):await()
  assert(answers.ten == "is no number")
  for _, row in ipairs(PRIMES) do
    assert(answers[row.n] == row.primes, "wrong answer")
  end

  ticked:await()
  print(("host: a luv timer ticked %d times meanwhile"):format(ticks))

  local path = here .. "luv_tasks.lua"
  local head = pool.call.read_later(0.02, path, 64):await()
  print(("task: waited for a luv timer, then read '%s'"):format(head:match("%C*")))
  assert(head == io.open(path):read(64), "wrong bytes")

  server:close()
  timer:close()
  pool:close()
  print("all answers are right")
end

main()
