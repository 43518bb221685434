--- What a confined worker goes on doing.
local treadle = require "treadle"

local M = {}

function M.add(a, b) return a + b end
function M.id() return treadle.worker.id end

function M.read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

function M.try_read(path)
  local file, why = io.open(path)
  return file ~= nil, why
end

function M.write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

function M.lines(path)
  local list = {}
  for line in io.lines(path) do
    list[#list + 1] = line
  end
  return list
end

function M.output(path)
  local before = io.output()
  io.output(path)
  io.write("first ", 2)
  io.output():close()
  io.output(before)
  io.input(path)
  local text = io.read "*a"
  io.input():close()
  return text
end

function M.popen(line)
  local file = assert(io.popen(line))
  local text = file:read "*a"
  file:close()
  return text
end

function M.execute(line) return os.execute(line) end
function M.remove(path) return os.remove(path) end
function M.getenv(name) return os.getenv(name) end
function M.require(name) return require(name) end
function M.print(...) print(...) io.write("written\n") io.stderr:write("to stderr\n") end
function M.endless() while true do pcall(function() while true do end end) end end
function M.crowd() local t = {} while true do t = { t } end end
function M.sleep(seconds) treadle.sleep(seconds) return "slept" end
function M.permissions() return treadle.worker.pool:permissions() end
function M.nested(n) return n <= 0 and 0 or 1 + treadle.worker.pool.call.nested(n - 1):await() end

function M.nested_in_time(n)
  return treadle.worker.pool:run("add", { n, 1 }, { timeout = 20 }):await()
end

--- Libraries use all of these.
function M.libraries()
  string.confined_trim = function(s) return (s:gsub("^%s+", "")) end -- luacheck: ignore
  local env = setmetatable({}, { __index = _G })
  local chunk = assert(load("x = 1 return x, type(string)", "=chunk", "t", env))
  local one, kind = chunk()
  local set = setfenv(function() return y end, { y = "y" }) -- luacheck: ignore
  return {
    trimmed = ("  text"):confined_trim(), upper = ("x"):upper(), one = one, kind = kind,
    kept = rawget(_G, "x") == nil and env.x == 1, set = set(),
    own = getfenv(1) == _G and getfenv(0) == _G and package.loaded._G == _G,
    info = debug.getinfo(1, "S").short_src:match "[%w_]+%.lua$",
    trace = debug.traceback("here"):match "^here\nstack traceback:",
    int = tostring(2LL + 1), date = type(os.date "%Y"), clock = type(os.clock()),
    jit = type(jit.status()), bits = bit.band(6, 3), new = type(require "table.new"),
    same = require "confined_tasks" == M or require "confined_tasks" ~= nil,
  }
end

function M.hot(n)
  local sum = 0
  for i = 1, n do
    sum = (sum + i * 3) % 1000003
  end
  return sum
end

function M.shared_things()
  local channel, mutex = treadle.channel(1), treadle.mutex()
  channel:send { 1, 2 }
  local value = mutex:with(function() return channel:recv() end)
  return value, treadle.spawn(function() treadle.sleep(0.001) return "spawned" end):await()
end

return M
