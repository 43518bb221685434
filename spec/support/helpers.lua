--- What the specs share: limits, scratch files, child processes, counting what the kernel sees.
-- Workers load this file, too, when a spec's functions are shipped: loading it has no effect.
local ffi = require "ffi"
local files = require "files"
local lfs = require "lfs"

local quote, line_of = files.quote, files.line_of

local helpers = {}

--- Seconds that anything may take before it counts as hanging.
helpers.TIMEOUT = 30

--- How long to wait for what the kernel shows a moment later.
local LIMIT = 20

--- How long to look between two looks at the kernel's lists.
local PAUSE = 0.002

local function absolute(path)
  return path:sub(1, 1) == "/" and path or lfs.currentdir() .. "/" .. path
end

--- The folder of this file, where task modules lie.
helpers.folder = absolute(debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or ".")

-- --- files ---------------------------------------------------------------------------------------

local scratch

--- A folder for the files of this process; package.path finds modules in it.
function helpers.scratch()
  if not scratch then
    scratch = line_of("mktemp -d")
    package.path = scratch .. "/?.lua;" .. package.path
  end
  return scratch
end

local file_count = 0

--- A path in the scratch folder that was not used before.
function helpers.new_path(suffix)
  file_count = file_count + 1
  return ("%s/file%d%s"):format(helpers.scratch(), file_count, suffix or "")
end

helpers.write = files.write

--- The text of a file, "" if there is none.
function helpers.read(path)
  local file = io.open(path, "rb")
  if not file then
    return ""
  end
  local text = file:read("*a")
  file:close()
  return text or "" -- of a process that has ended since
end

function helpers.lines(path)
  local list = {}
  for line in helpers.read(path):gmatch("[^\n]+") do
    list[#list + 1] = line
  end
  return list
end

--- Make a module of the scratch folder.
function helpers.module(name, text)
  helpers.write(helpers.scratch() .. "/" .. name .. ".lua", text)
  return name
end

--- To be called once at the end of a spec file.
function helpers.clean()
  if scratch then
    os.execute("rm -rf " .. quote(scratch))
    scratch = nil
  end
end

-- --- time ----------------------------------------------------------------------------------------

local has_poll = false

--- Block this thread for a moment without turning treadle's loop.
function helpers.pause()
  if not has_poll then
    pcall(ffi.cdef, "int poll(void *, unsigned long, int);")
    has_poll = true
  end
  ffi.C.poll(nil, 0, PAUSE * 1000)
end

--- Wait until `fn()` is true, without turning treadle's loop; fails after LIMIT.
function helpers.eventually(fn, what)
  local stop = os.time() + LIMIT
  while not fn() do
    if os.time() > stop then
      what = type(what) == "function" and what() or what
      error("never came true: " .. (what or "condition"), 2)
    end
    helpers.pause()
  end
end

--- The same, turning treadle's loop meanwhile.
function helpers.poll_until(fn, what)
  local treadle = require "treadle"
  local stop = os.time() + LIMIT
  while not fn() do
    if os.time() > stop then
      what = type(what) == "function" and what() or what
      error("never came true: " .. (what or "condition"), 2)
    end
    treadle.poll(PAUSE)
  end
end

--- Wait until tasks have written so many lines, 1 unless told, to a file.
function helpers.entered(path, times)
  helpers.poll_until(function()
    return #helpers.lines(path) >= (times or 1)
  end, "the task has begun")
end

--- Interrupt something by a time limit that must have begun by then, however slow this machine is:
-- call `fn(seconds)`, each time with twice the time, until it does not return nil or false, which
-- say that the time was too short.
-- @return what `fn` has returned
function helpers.with_limit(fn)
  local seconds = 0.01
  while seconds < helpers.TIMEOUT do
    local found = fn(seconds)
    if found then
      return found
    end
    seconds = seconds * 2
  end
  error("it never began in time", 2)
end

--- "resolved", the kind of a future's error, or "pending" if it does not settle.
function helpers.outcome(f)
  if not f:wait(helpers.TIMEOUT) then
    return "pending"
  end
  local ok, err = f:pawait()
  return ok and "resolved" or err.kind
end

-- --- what the kernel sees ------------------------------------------------------------------------

local function count_entries(path)
  local n = 0
  for name in lfs.dir(path) do
    if name ~= "." and name ~= ".." then
      n = n + 1
    end
  end
  return n
end

function helpers.threads()
  return count_entries("/proc/self/task")
end

function helpers.descriptors()
  return count_entries("/proc/self/fd")
end

--- Names of this process's threads, sorted.
function helpers.thread_names()
  local names = {}
  for id in lfs.dir("/proc/self/task") do
    local name = id:match("^%d+$") and helpers.read("/proc/self/task/" .. id .. "/comm")
    if name and name ~= "" then -- it has not ended meanwhile
      names[#names + 1] = name:gsub("\n", "")
    end
  end
  table.sort(names)
  return names
end

ffi.cdef "int malloc_trim(size_t)"

--- Bytes of memory that are in use: what the C library only keeps is given back before, as far as
-- it can be.
function helpers.resident()
  collectgarbage()
  collectgarbage()
  ffi.C.malloc_trim(0)
  return tonumber(helpers.read("/proc/self/statm"):match("^%d+ (%d+)")) * 4096
end

--- Remember how many threads and descriptors there are, once this state has used all that it
-- keeps; the function that is returned waits until there are no more, and fails if that never
-- happens.
function helpers.watch()
  local treadle = require "treadle"
  treadle.pool("tasks", { threads = 1 }):close()
  treadle.sleep(0.001)
  helpers.scratch()
  collectgarbage()
  local threads, descriptors = helpers.threads(), helpers.descriptors()
  return function()
    require("jit").flush() -- a trace holds on to the functions that it calls, these to their pool
    helpers.eventually(function()
      collectgarbage()
      treadle.poll() -- reads the pools' last notes, which keep the supervisor
      return helpers.threads() <= threads
    end, function()
      return ("%d threads, there are %s"):format(threads,
        table.concat(helpers.thread_names(), ", "))
    end)
    helpers.eventually(function()
      collectgarbage()
      return helpers.descriptors() <= descriptors
    end, ("%d descriptors"):format(descriptors))
  end
end

-- --- errors --------------------------------------------------------------------------------------

--- Call a function that was written in one line; the message of its error, without the position,
-- which must be that line.
function helpers.error_here(fn)
  local info = debug.getinfo(fn, "S")
  local ok, err = pcall(fn)
  if ok then
    error("no error was raised", 2)
  end
  local text = tostring(err)
  local here = ("%s:%d: "):format(info.short_src, info.linedefined)
  if text:sub(1, #here) ~= here then
    error(("the error is not at '%s': %s"):format(here, text), 2)
  end
  return text:sub(#here + 1)
end

-- --- child processes -----------------------------------------------------------------------------

--- Run a line of shell text. Modules of the scratch and support folders are found.
-- @treturn string output
-- @treturn string error output
-- @treturn number exit code, 124 if it did not end in time
function helpers.shell(line, input)
  local out, err = helpers.new_path(".out"), helpers.new_path(".err")
  local from = input and helpers.write(helpers.new_path(".in"), input) or "/dev/null"
  local code = line_of(("cd %s && LUA_PATH=%s timeout -k 5 %d sh -c %s >%s 2>%s <%s; echo $?")
    :format(quote(helpers.scratch()), quote(("%s/?.lua;%s/?.lua;;"):format(helpers.scratch(),
      helpers.folder)), helpers.TIMEOUT, quote(line), quote(out), quote(err), quote(from)))
  return helpers.read(out), helpers.read(err), tonumber(code)
end

--- Write a script and run it: `program` is "luajit" or "treadle".
function helpers.child(program, text, ...)
  local path = helpers.write(helpers.new_path(".lua"), text)
  local words = { "exec", program, quote(path) }
  for _, word in ipairs { ... } do
    words[#words + 1] = quote(tostring(word))
  end
  return helpers.shell(table.concat(words, " "))
end

helpers.quote = quote

return helpers
