--- Tasks for the specs of what crosses the border of a process.
local stays = require "crossing_things"
local treadle = require "treadle"

require("ffi").cdef [[
typedef struct { double a, b; } crossing_pair;
typedef union { double number; uint64_t bits; } crossing_cell;
typedef struct { crossing_cell cells[2]; } crossing_cells;
]]

local M = {}

local kept = {}

function M.echo(...)
  return ...
end

function M.make(name)
  return 1, { x = { stays[name]() } }
end

function M.fail(name)
  error({ x = { stays[name]() } })
end

--- The same beside a buffer that is given away: whether that is still here.
function M.fail_to_give(name)
  kept.buffer = treadle.buffer("int", 3, { process = true })
  return treadle.move(kept.buffer), stays[name]()
end

function M.has_buffer()
  return #kept.buffer
end

function M.keep(...)
  kept.list = { ... }
end

function M.drop()
  kept.list = nil
  collectgarbage()
  collectgarbage()
end

function M.kept()
  return unpack(kept.list)
end

function M.data()
  return treadle.worker.data
end

--- Whether the handle that comes is the one that was kept.
function M.is_kept(buf)
  return rawequal(kept.list[1], buf)
end

function M.add(buf, n)
  for _ = 1, n do
    treadle.atomics.add(buf, 0, 1)
  end
end

function M.fill(buf, v)
  buf:fill(v)
end

function M.get(buf, i)
  return buf:get(i)
end

--- A buffer of this process's, filled; it is kept, too, if asked for.
function M.new(n, v, keep)
  local buf = treadle.buffer("int", n, { process = true }):fill(v)
  kept.list = keep and { buf }
  return buf
end

function M.give_away()
  return treadle.move(kept.list[1])
end

function M.look()
  return pcall(function() return #kept.list[1] end)
end

function M.fail_with(buf)
  error({ buf = buf })
end

--- Writes bits over a buffer's elements, which may be forged values of LuaJIT's.
function M.forge(buf, high, low)
  local words = require("ffi").cast("uint32_t *", buf.ptr)
  for i = 0, #buf:string() / 4 - 1, 2 do
    words[i], words[i + 1] = low, high
  end
end

--- Says on the process's line what is no message about a buffer; then never ends by itself.
function M.say(kind, high, low)
  local ffi = require "ffi"
  ffi.cdef "long send(int, const void *, size_t, int);"
  local m = ffi.new("uint32_t[10]")
  m[0], m[2], m[4], m[5], m[6] = kind, 16, low, high, 100
  assert(ffi.C.send(3, m, 40, 0) == 40)
  while true do
    treadle.sleep(1)
  end
end

function M.make_function()
  return function() return 1 end
end

function M.crash(_)
  require("ffi").cast("int *", 0)[0] = 1
end

return M
