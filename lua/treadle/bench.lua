--- `treadle bench`: what a call costs on this machine. The same file gives the workers their tasks.
-- Each row is measured in batches for its share of the time; the median of the batches counts.
-- @module treadle.bench
local treadle = require "treadle"
local core = require "treadle.core"
local options = require "treadle.options"

local tasks = {}

function tasks.echo(...)
  return ...
end

--- Some ten microseconds of work.
function tasks.work(n)
  local x = n
  for _ = 1, 2000 do
    x = (x * 69069 + 1) % 4294967296
  end
  return x
end

if not treadle.is_main then
  return tasks
end

local M = {}

local USAGE = [[
usage: treadle bench [OPTION...]   measure what a call costs on this machine
       --seconds N                 take about so long (default: 3)
       --threads N                 workers of the parallel rows (default: treadle.cores())
       -h | --help                 print this
]]

local OPTIONS = { ["--seconds"] = true, ["--threads"] = true, ["--help"] = true, ["-h"] = true }

local BATCH = 0.002 -- seconds that a batch takes about
local IN_FLIGHT = 1000
local MIB = ("\1"):rep(2 ^ 20)

--- Seconds that `fn(n)` takes for each of n, the median of batches.
local function measure(seconds, fn)
  local n = 1
  while true do -- until a batch is long enough; this warms up, too
    local start = core.now()
    fn(n)
    if core.now() - start >= BATCH / 2 then
      break
    end
    n = n * 2
  end
  local samples, stop = {}, core.now() + seconds
  repeat
    local start = core.now()
    fn(n)
    samples[#samples + 1] = (core.now() - start) / n
  until core.now() >= stop
  table.sort(samples)
  return samples[math.ceil(#samples / 2)]
end

--- One call after the other, each awaited.
local function in_turn(pool, ...)
  local args, count = { ... }, select("#", ...)
  return function(n)
    for _ = 1, n do
      pool.call.echo(unpack(args, 1, count)):await()
    end
  end
end

local function in_flight(pool)
  local futures = {}
  return function(n)
    for _ = 1, n do
      for i = 1, IN_FLIGHT do
        futures[i] = pool.call.echo(i)
      end
      for i = 1, IN_FLIGHT do
        futures[i]:await()
      end
    end
  end
end

local function first_result(n)
  for _ = 1, n do
    local pool = treadle.pool("treadle.bench", { threads = 1 })
    pool.call.echo(1):await()
    pool:close()
  end
end

local UNITS = {
  { 1e-9, "ns", 1e-6 }, { 1e-6, "µs", 1e-3 }, { 1e-3, "ms", 1 }, { 1, "s", math.huge },
}

--- A time of three digits.
local function time(seconds)
  for _, unit in ipairs(UNITS) do
    if seconds < unit[3] then
      return ("%.3g %s"):format(seconds / unit[1], unit[2])
    end
  end
end

local function print_row(what, value)
  io.write(("%-44s %s\n"):format(what, value))
  io.flush()
end

--- Measure and print all rows.
local function run(seconds, threads)
  local share = seconds / 8
  local list = {}
  for i = 1, 1000 do
    list[i] = i
  end
  print_row("first result of a new pool, and its end", time(measure(share, first_result)))
  treadle.using(treadle.pool("treadle.bench", { threads = 1 }), function(pool)
    print_row("one call, awaited", time(measure(share, in_turn(pool, 1))))
    print_row("the same, 1 KiB string", time(measure(share, in_turn(pool, MIB:sub(1, 1024)))))
    print_row("the same, table of three fields",
      time(measure(share, in_turn(pool, { x = 1, y = "two", z = true }))))
    print_row("the same, 1 MiB string", time(measure(share, in_turn(pool, MIB))))
    print_row(("%d calls in flight, each"):format(IN_FLIGHT),
      time(measure(share, in_flight(pool)) / IN_FLIGHT))
  end)
  local alone = measure(share, function(n)
    for _ = 1, n do
      for i = 1, #list do
        tasks.work(list[i])
      end
    end
  end)
  treadle.using(treadle.pool("treadle.bench", { threads = threads }), function(pool)
    local spread = measure(share, function(n)
      for _ = 1, n do
        pool:map("work", list):await()
      end
    end)
    print_row(("map of %s of work, %d worker%s"):format(time(alone), threads,
      threads == 1 and "" or "s"), ("%.2f times as fast"):format(alone / spread))
  end)
end

local function misuse(message)
  io.stderr:write("treadle bench: ", message, "\n", USAGE)
  return nil, 2
end

--- Read what follows `treadle bench`.
-- @tparam table args
-- @treturn function measures and prints, or nil
-- @treturn number exit code without it
function M.prepare(args)
  local values, i = { ["--seconds"] = 3, ["--threads"] = treadle.cores() }, 1
  while args[i] do
    local word = args[i]
    if word == "-h" or word == "--help" then
      io.stdout:write(USAGE)
      return nil, 0
    elseif not OPTIONS[word] then
      return misuse(("unknown option '%s', did you mean '%s'?"):format(word,
        options.nearest(word, OPTIONS)))
    end
    local value = tonumber(args[i + 1])
    if not value or not (value > 0 and value < math.huge) then
      return misuse(("option %s needs a number above 0"):format(word))
    elseif word == "--threads" and value % 1 ~= 0 then
      return misuse "option --threads needs a whole number"
    end
    values[word], i = value, i + 2
  end
  return function()
    run(values["--seconds"], values["--threads"])
  end
end

return M
