--- The bench: measures treadle beside the limits of the machine and prints a table.
-- usage: build/treadle spec/bench/run.lua [--quick] [--json FILE | --where]  (or luajit instead)
-- With --where it prints a page of its own: where the time of one call goes (where.lua).
-- Measures, never asserts: a row that cannot be measured says why, and the exit code is 1.
-- docs/bench.md says what each row means.
local dir = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
local root = dir .. "/../.."
package.path = ("%s/?.lua;%s"):format(dir, package.path)

local ffi = require "ffi"
local limits = require "limits"
local text = require "text"

local format, left, right = text.format, text.left, text.right

ffi.cdef "int isatty(int fd);"

local USAGE = "usage: run.lua [--quick] [--json FILE | --where]"

-- How long each thing is measured: `rounds` over all measures of a section; in each, for `round`
-- seconds, batches of about `batch` seconds, their median a sample; `warm` seconds beforehand.
local PLANS = {
  full = { rounds = 11, round = 0.03, batch = 0.002, warm = 0.06, idle = 1, paced = 2 },
  quick = { rounds = 5, round = 0.008, batch = 0.001, warm = 0.02, idle = 0.2, paced = 0.5 },
}

-- Sections in the order of running: name, how often, a command to run it under, the program that
-- runs it if it is not luajit, and how the keys begin that it measures.
local SECTIONS = {
  {
    name = "machine",
    keys = { "pingpong", "futex$", "handoff", "ring", "thread$", "copy", "make", "buffer" },
  },
  { name = "calls", keys = { "one", "flight", "codec" } },
  { name = "channels", keys = { "channel" } },
  { name = "command", program = root .. "/build/treadle", keys = { "command" } },
  { name = "locks", keys = { "lock" } },
  { name = "watched", keys = { "watched" } },
  { name = "processes", keys = { "process" } },
  { name = "pinned", under = "taskset -c 0 ", keys = { "pinned" } },
  { name = "life", keys = { "first", "many", "threads" } },
  { name = "resident1", times = 5, keys = { "resident" } },
  { name = "resident33", times = 5, keys = {} },
  { name = "bare", times = 5, keys = { "bare" } },
  { name = "idle", keys = { "idle" } },
  { name = "paced", keys = { "paced", "futex" } },
  { name = "spinning", keys = { "crowd", "busy" } },
  { name = "coroutines", keys = { "spawn" } },
  { name = "queued", times = 3, keys = { "queued" } },
  { name = "stuck", keys = { "share%." } },
  { name = "loops", keys = { "loop", "sort" } },
  { name = "memory", keys = { "memory" } },
  { name = "shared", keys = { "shared", "plain", "treadle" } },
  { name = "signals", keys = { "signals" } },
}

-- Those of the page of stages, in turn: what the machine is busy with meets both alike.
local WHERE_SECTIONS = { { name = "where" }, { name = "where", variant = "stamps" } }
local WHERE_TURNS = { full = 3, quick = 1 }

--- Why a key has no samples: its own error, or that of the section that should have measured it.
local function why_missing(key, errors)
  if errors[key] then return errors[key] end
  for _, section in ipairs(SECTIONS) do
    for _, prefix in ipairs(section.keys) do
      if key:find("^" .. prefix) then return errors["section " .. section.name] or "no sample" end
    end
  end
  return "no sample"
end

-- A section's child gets the last two.
local VALUED = { ["--json"] = true, ["--section"] = true, ["--variant"] = true }

local function parse(args)
  local options = { plan = "full" }
  local i = 1
  while args[i] do
    if args[i] == "--quick" then
      options.plan = "quick"
    elseif args[i] == "--where" then
      options.where = true
    elseif VALUED[args[i]] and args[i + 1] then
      options[args[i]:sub(3)] = args[i + 1]
      i = i + 1
    else
      io.stderr:write(("run.lua: unknown argument '%s'\n%s\n"):format(args[i], USAGE))
      os.exit(2)
    end
    i = i + 1
  end
  if options.where and options.json then
    io.stderr:write(("run.lua: --where prints a page, and no JSON\n%s\n"):format(USAGE))
    os.exit(2)
  end
  return options
end

-- One section, in a process of its own ------------------------------------------------------------

local function run_section(name, plan)
  io.stdout:setvbuf("full")
  limits.load(root .. "/build/bench")
  local failed = false
  local function emit(key, value, err)
    if value then
      io.write(("%s\t%.17g\n"):format(key, value))
    else
      failed = true
      io.write(("%s\t!%s\n"):format(key, tostring(err):gsub("\n", "\\n")))
    end
    io.flush()
  end
  local ok, err = xpcall(require("sections")[name], debug.traceback, plan, emit)
  if not ok then emit("section." .. name, nil, err) end
  io.flush()
  os.exit((ok and not failed) and 0 or 1, true)
end

--- Runs a section as a child and collects its samples, and why it failed if it did.
local function collect(section, options, samples, errors)
  local seconds = options.plan == "quick" and 20 or 60
  local log = root .. "/build/bench/stderr.txt"
  local command = ("timeout -k 1 %d %s%s %s %s--section %s%s 2>%s; echo \"exit\t$?\""):format(
    seconds, section.under or "", limits.quote(section.program or "luajit"),
    limits.quote(dir .. "/run.lua"),
    options.plan == "quick" and "--quick " or "", section.name,
    section.variant and " --variant " .. section.variant or "", limits.quote(log))
  local pipe = assert(io.popen(command))
  local status, why
  for line in pipe:lines() do
    local key, value = line:match("^([^\t]+)\t(.*)$")
    if key == "exit" then
      status = tonumber(value)
    elseif key and value:sub(1, 1) == "!" then
      local message = value:sub(2):gsub("\\n", "\n")
      if key:find("^section%.") then why = message else errors[key] = message end
    elseif key and tonumber(value) then
      samples[key] = samples[key] or {}
      table.insert(samples[key], tonumber(value))
    end
  end
  pipe:close()
  if not why and status ~= 0 and status ~= 1 then
    local file = io.open(log)
    local said = file and file:read("*a"):match("([^\n]*)%s*$") or ""
    if file then file:close() end
    why = (status == 124 or status == 137) and ("no end within %d s"):format(seconds)
      or ("ended with status %s %s"):format(tostring(status), said)
  end
  if why then errors["section " .. section.name] = why end
end

-- The table ---------------------------------------------------------------------------------------

--- A key, a function of the medians or a number; nil where a median is missing.
local function resolve(x, medians)
  if type(x) == "table" then x = x.fn end
  if type(x) == "string" then return medians[x] end
  if type(x) == "function" then
    local ok, value = pcall(x, medians)
    return ok and value or nil
  end
  return x
end

--- Fills in every row's figures.
local function evaluate(rows, samples)
  local medians, spread = {}, {}
  for key, list in pairs(samples) do
    spread[key] = text.quantiles(list)
    medians[key] = spread[key].median
  end
  for _, row in ipairs(rows) do
    if not row.title then
      row.got = resolve(row.value, medians)
      row.stat = type(row.value) == "string" and spread[row.value] or nil
      row.goal = resolve(row.goal or nil, medians)
      row.limit = resolve(row.limit or nil, medians)
      if row.got and row.limit then
        row.ratio = row.unit == "rate" and row.limit / row.got or row.got / row.limit
      end
      if row.got and row.goal then
        row.reached = row.unit == "rate" and row.got >= row.goal
          or row.unit ~= "rate" and row.got <= row.goal
      end
    end
  end
  return spread
end

local function print_table(rows, failures)
  local function line(mark, what, got, goal, limit, ratio, rival)
    local all = table.concat({
      mark .. left(what, 37), right(got, 11), right(goal, 9), right(limit, 9), right(ratio, 7),
      " " .. (rival or ""),
    }, " ")
    print((all:gsub("%s+$", "")))
  end
  line(" ", "what", "treadle", "goal", "limit", "ratio", "best rival")
  print(("-"):rep(100))
  for _, row in ipairs(rows) do
    if row.title then
      print(row.title)
    elseif not row.got or row.got ~= row.got then
      print("! " .. left(row.what, 36) .. "  failed: " .. failures(row))
    else
      local noisy = row.stat and row.stat.samples >= 5
        and row.stat.q75 - row.stat.q25 > 0.3 * math.abs(row.stat.median)
      line(row.reached == nil and " " or row.reached and "+" or "-", " " .. row.what,
        format(row.got, row.unit) .. (noisy and "~" or " "), format(row.goal, row.unit),
        format(row.limit, row.unit),
        row.ratio and ("%." .. (row.ratio < 99.95 and 1 or 0) .. "fx"):format(row.ratio) or "",
        row.rival or "")
    end
  end
  print(("-"):rep(100))
end

-- The result for programs -------------------------------------------------------------------------

local function json(value, indent)
  local kind = type(value)
  if kind == "string" then
    return '"' .. value:gsub('[%c"\\]', function(c)
      return ("\\u%04x"):format(c:byte())
    end) .. '"'
  elseif kind == "number" then
    return (value ~= value or math.abs(value) == math.huge) and "null" or ("%.9g"):format(value)
  elseif kind ~= "table" then
    return tostring(value)
  end
  local inner = indent .. "  "
  local parts = {}
  if #value > 0 then
    for i, v in ipairs(value) do parts[i] = json(v, inner) end
    return "[\n" .. inner .. table.concat(parts, ",\n" .. inner) .. "\n" .. indent .. "]"
  end
  local keys = {}
  for k in pairs(value) do keys[#keys + 1] = k end
  table.sort(keys)
  for i, k in ipairs(keys) do parts[i] = json(k, inner) .. ": " .. json(value[k], inner) end
  return "{\n" .. inner .. table.concat(parts, ",\n" .. inner) .. "\n" .. indent .. "}"
end

local function write_json(path, machine, rows, spread, errors)
  local out = { machine = machine, rows = {}, keys = spread, errors = errors }
  local group
  for _, row in ipairs(rows) do
    if row.title then
      group = row.title
    else
      out.rows[#out.rows + 1] = {
        group = group, what = row.what, unit = row.unit, treadle = row.got, goal = row.goal,
        limit = row.limit, ratio = row.ratio, reached = row.reached, rival = row.rival,
      }
    end
  end
  local file, err = io.open(path, "w")
  if not file then
    io.stderr:write("run.lua: " .. err .. "\n")
    return false
  end
  file:write(json(out, ""), "\n")
  file:close()
  return true
end

-- The run -----------------------------------------------------------------------------------------

local function read(path, pattern)
  local file = io.open(path)
  local all = file and file:read("*a") or ""
  if file then file:close() end
  return all:match(pattern) or "unknown"
end

local function describe()
  local ok, treadle = pcall(require, "treadle")
  return {
    cpu = read("/proc/cpuinfo", "model name%s*:%s*([^\n]*)"), cores = limits.cores(),
    kernel = read("/proc/sys/kernel/osrelease", "%S+"), load = read("/proc/loadavg", "%S+"),
    luajit = jit.version, treadle = ok and treadle.version or "none",
    date = os.date("%Y-%m-%d %H:%M"),
  }
end

--- Seconds that all cores have been busy since the machine was started.
local function busy_seconds()
  local user, nice, system = read("/proc/stat", "[^\n]*"):match("^cpu%s+(%d+) (%d+) (%d+)")
  return user and (user + nice + system) / 100
end

local function print_head(machine)
  print(("treadle %s, %s, %s"):format(machine.treadle, machine.luajit, machine.date))
  print(("%s, %d cores, Linux %s, load %s"):format(machine.cpu, machine.cores, machine.kernel,
    machine.load))
  print()
end

local function print_errors(errors)
  local told = {}
  for key, why in pairs(errors) do
    local first = why:match("[^\n]*")
    if not told[first] then print(("\n%s: %s"):format(key, why)) end
    told[first] = true
  end
end

--- Runs sections `turns` times and adds what others used of the machine meanwhile.
-- @return samples and errors by key
local function run_all(sections, turns, options, machine)
  local samples, errors = {}, {}
  local terminal = ffi.C.isatty(2) == 1
  local started, busy, own = limits.now(), busy_seconds(), limits.cpu() + limits.children_cpu()
  for _ = 1, turns do
    for _, section in ipairs(sections) do
      if terminal then io.stderr:write("\r\27[Kmeasuring: ", section.name) end
      for _ = 1, section.times or 1 do collect(section, options, samples, errors) end
    end
  end
  if terminal then io.stderr:write("\r\27[K") end
  machine.wall = limits.now() - started
  machine.others = busy
    and (busy_seconds() - busy - (limits.cpu() + limits.children_cpu() - own)) / machine.wall
  return samples, errors
end

local function print_end(options, machine)
  print(("%s run, %.0f s; other processes used %.2f of the %d cores meanwhile"):format(
    options.plan, machine.wall, math.max(0, machine.others or 0), machine.cores))
end

--- The page of stages.
local function main_where(options)
  local where = require "where"
  local machine = describe()
  local library = io.open(root .. "/build/stamps/treadle.so")
  if not library then
    io.stderr:write("run.lua: --where needs the build with stamps: make VARIANT=stamps\n")
    return 1
  end
  library:close()
  local samples, errors = run_all(WHERE_SECTIONS, WHERE_TURNS[options.plan], options, machine)
  local figures = {}
  for key, list in pairs(samples) do figures[key] = where.figure(key, list) end
  print_head(machine)
  for _, line in ipairs(where.lines(figures)) do print(line) end
  print()
  print("best: what the machine can do, measured in this run. How to read the page: docs/bench.md")
  local doubt = where.doubt(figures.cycles and read("/proc/cpuinfo", "flags%s*:([^\n]*)") or "",
    figures.backwards or 0)
  print(("each stage holds one stamp, and %s are taken off for it"):format(
    format(figures.stamp, "time")))
  if doubt then print("stages between two cores are not to be trusted: " .. doubt) end
  print_end(options, machine)
  print_errors(errors)
  return next(errors) and 1 or 0
end

local function main(args)
  local options = parse(args)
  package.cpath = ("%s/build/%s?.so;%s"):format(root,
    options.variant and options.variant .. "/" or "", package.cpath)
  local ok, err = limits.build(dir, root .. "/build/bench")
  if not ok then
    io.stderr:write("run.lua: " .. err .. "\n")
    return 1
  end
  if options.section then return run_section(options.section, PLANS[options.plan]) end
  limits.load(root .. "/build/bench")
  if options.where then return main_where(options) end

  local machine = describe()
  local samples, errors = run_all(SECTIONS, 1, options, machine)
  local rows = require "rows"
  local spread = evaluate(rows, samples)
  local failed = next(errors) ~= nil
  print_head(machine)
  print_table(rows, function(row)
    failed = true
    local keys = type(row.value) == "table" and row.value or { row.value }
    return why_missing(keys[1], errors):match("[^\n]*"):sub(1, 54)
  end)
  print("+ goal reached, - not reached, ~ the middle half of the samples spreads over 30 %")
  print("ratio: how many times worse than the limit. What each row means: docs/bench.md")
  print_end(options, machine)
  print_errors(errors)
  if options.json and not write_json(options.json, machine, rows, spread, errors) then return 1 end
  return failed and 1 or 0
end

os.exit(main(arg), true)
