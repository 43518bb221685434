--- Loads the example's HTTP server (examples/server/) with cheap requests, from wrk, and with heavy
-- ones at a fixed rate, from here; prints how long the cheap ones took and how many heavy ones were
-- answered, with the heavy ones in the pool and in the loop: `make load`, or
-- `treadle spec/bench/server.lua [--seconds N] [--rate N] [--rounds N] [--threads N]`
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "../support/?.lua;" .. here .. "../../examples/?.lua;" .. package.path

local treadle = require "treadle"
local uv = require "luv"

local start_child = require "child"

local USAGE = [[
usage: treadle spec/bench/server.lua [OPTION...]
  --seconds N   of each measurement (10)
  --rate N      heavy requests in a second (5)
  --rounds N    of the hash that a heavy request asks for (200000)
  --threads N   of the pool (one for each processor)
]]

local arguments = require "arguments"("load", USAGE)

local TREADLE = uv.exepath()
local SERVER = here .. "../../examples/server/main.lua"
local CONNECTIONS = 16
local PAUSE_MS = 10 -- of each connection of wrk's between two requests

-- What wrk runs: it pauses, and says its figures in a line that a program can read.
local WRK = [[
function delay() return %d end
function done(summary, latency)
  local errors = summary.errors
  print(("figures: %%d %%d %%d %%d %%d %%d %%d"):format(summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
]]

local function read_options(words)
  local options = { seconds = 10, rate = 5, rounds = 200000 }
  for i = 1, #words, 2 do
    arguments:help(words[i])
    local name, n = words[i]:match("^%-%-(%l+)$"), tonumber(words[i + 1])
    if not (options[name] or name == "threads") then
      arguments:fail("unknown option '%s'", words[i])
    elseif not n or n <= 0 then
      arguments:fail("--%s needs a number above 0", name)
    end
    options[name] = n
  end
  return options
end

-- Wait until `fn()` is true; ends the program if the child ends before.
local function wait_for(child, fn)
  while not fn() do
    if child.is_silent then
      error("it ended: " .. child.err, 0)
    end
    treadle.poll(0.1)
  end
end

-- Ask for one hash on a connection of its own; a future of whether it was answered with 200.
local function ask_heavy(port, rounds)
  local future, resolve = treadle.future()
  local socket, answer = uv.new_tcp(), ""
  local function finish()
    if not socket:is_closing() then
      socket:close()
      resolve(answer:find("^HTTP/1.1 200 ") ~= nil)
    end
  end
  socket:connect("127.0.0.1", port, function(err)
    if err then
      return finish()
    end
    socket:read_start(function(_, data)
      if data then
        answer = answer .. data
      else
        finish()
      end
    end)
    socket:write(("GET /hash?rounds=%d HTTP/1.0\r\n\r\n"):format(rounds), function(write_err)
      if write_err then
        finish()
      end
    end)
  end)
  return future
end

-- One heavy request each 1 / rate seconds, whether or not those before have been answered.
local function start_heavy(port, rate, rounds)
  local heavy = { asked = 0, answered = 0, times = {} }
  local timer = uv.new_timer()
  local function ask()
    local before = treadle.now()
    heavy.asked = heavy.asked + 1
    ask_heavy(port, rounds):and_then(function(ok)
      if ok and not heavy.is_over then
        heavy.answered = heavy.answered + 1
        heavy.times[heavy.answered] = treadle.now() - before
      end
    end)
  end
  timer:start(0, math.ceil(1000 / rate), ask)
  function heavy.stop()
    heavy.is_over = true
    timer:close()
    table.sort(heavy.times)
  end
  return heavy
end

-- Load a server that runs.
-- @return a row of figures
local function measure(port, script, options, rate)
  local heavy = rate > 0 and start_heavy(port, rate, options.rounds)
  local wrk = start_child("wrk", {
    "-t1", "-c" .. CONNECTIONS, ("-d%ds"):format(options.seconds), "--timeout", "60s",
    "-s", script, ("http://127.0.0.1:%d/health"):format(port),
  })
  local code = wrk.ended:await()
  if heavy then
    heavy.stop()
  end
  while not wrk.is_silent do
    treadle.poll(0.1)
  end
  if code ~= 0 then
    error("wrk: " .. wrk.err, 0)
  end
  local requests, duration, p50, p90, p99, max, errors = wrk.out:match(
    "figures: (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)")
  local seconds = duration / 1e6
  local times = heavy and heavy.times
  return ("%14.0f %8.2f %8.2f %8.2f %8.2f %7d %12s %5s"):format(requests / seconds, p50 / 1e3,
    p90 / 1e3, p99 / 1e3, max / 1e3, errors,
    heavy and ("%.1f"):format(heavy.answered / seconds) or "-",
    heavy and times[1] and ("%.0f"):format(times[math.ceil(#times / 2)] * 1e3) or "-")
end

local function main(words)
  local options = read_options(words)
  local script = os.tmpname()
  local file = assert(io.open(script, "w"))
  file:write(WRK:format(PAUSE_MS))
  file:close()

  print(("cheap: GET /health by wrk, %d connections, %d ms between the requests of each"):format(
    CONNECTIONS, PAUSE_MS))
  print(("heavy: GET /hash?rounds=%d, %g in a second; %g s each; times in ms"):format(
    options.rounds, options.rate, options.seconds))
  print()
  print("server     heavy     cheap: per s     p50      p90      p99      max  errors heavy: per s"
    .. "   p50")
  for _, mode in ipairs { "offloaded", "inline" } do
    for _, rate in ipairs { 0, options.rate } do
      local args = { SERVER, "--port", "0", "--timeout", "60", "--grace", "0" }
      if mode == "inline" then
        args[#args + 1] = "--inline"
      elseif options.threads then
        args[#args + 1] = "--threads"
        args[#args + 1] = ("%d"):format(options.threads)
      end
      local server = start_child(TREADLE, args)
      wait_for(server, function() return server.out:find "\n" end)
      local port = tonumber(server.out:match ":(%d+),")
      local ok, row = pcall(measure, port, script, options, rate)
      server.kill("sigkill")
      server.ended:await()
      assert(ok, row)
      print(("%-10s %-7s %s"):format(mode, rate == 0 and "none" or ("%g /s"):format(rate), row))
      io.stdout:flush()
    end
  end
  os.remove(script)
end

main { ... }
