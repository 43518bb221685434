--- What the kernel knows of this process's children and of the memory that it shares with them.
local helpers = require "helpers"
local ffi = require "ffi"
local lfs = require "lfs"

pcall(ffi.cdef, "int kill(int, int);")

local processes = {}

local own = helpers.read("/proc/self/stat"):match("^%d+")

--- The fields of a process's stat behind its name; nil when there is none.
local function stat_of(pid)
  return helpers.read("/proc/" .. pid .. "/stat"):match("^%d+ %(.*%) (.*)")
end

function processes.own()
  return tonumber(own)
end

--- A letter, or nil when it has ended.
function processes.state(pid)
  return (stat_of(pid) or ""):match("^(%S)")
end

--- Whether it runs, or could.
function processes.lives(pid)
  local state = processes.state(pid)
  return state ~= nil and state ~= "Z" and state ~= "X"
end

--- Children of a process, this one unless told, with those that have yet to be reaped.
function processes.children(of)
  local list = {}
  of = tostring(of or own)
  for pid in lfs.dir("/proc") do
    local stat = pid:match("^%d+$") and stat_of(pid)
    if stat and stat:match("^%S (%d+)") == of then
      list[#list + 1] = tonumber(pid)
    end
  end
  return list
end

function processes.kill(pid, signal)
  return ffi.C.kill(pid, signal) == 0
end

--- Run a script beside this process. Modules of the specs are found.
-- @return the child: `read_number()`, from its output; `kill()`, until it has ended
function processes.start(program, script)
  local pipe = assert(io.popen(("cd %s && echo $$ && LUA_PATH=%s exec %s %s </dev/null"):format(
    helpers.quote(helpers.scratch()), helpers.quote(("%s/?.lua;%s/?.lua;;"):format(
      helpers.scratch(), helpers.folder)), program, helpers.quote(script))))
  local child = {}
  function child.read_number()
    return (assert(pipe:read("*n"), "it has ended"))
  end
  child.pid = child.read_number()
  function child.kill()
    processes.kill(child.pid, 9)
    pipe:close()
  end
  return child
end

--- How many mappings and descriptors of shared memory this process has.
function processes.memory()
  local _, maps = helpers.read("/proc/self/maps"):gsub("memfd:treadle %(", "")
  local files = 0
  for fd in lfs.dir("/proc/self/fd") do
    local target = lfs.symlinkattributes("/proc/self/fd/" .. fd, "target")
    files = files + (target and target:find("memfd:treadle (", 1, true) and 1 or 0)
  end
  return maps + files
end

--- As helpers.watch, for processes, too.
function processes.watch()
  local done = helpers.watch()
  return function()
    done()
    helpers.eventually(function()
      return #processes.children() == 0
    end, function()
      return #processes.children() .. " children"
    end)
    helpers.eventually(function()
      collectgarbage()
      return processes.memory() == 0
    end, "no shared memory is left")
  end
end

return processes
