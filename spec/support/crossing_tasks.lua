--- Tasks for the specs of what crosses the border of a process.
local ffi = require "ffi"
local stays = require "crossing_things"
local treadle = require "treadle"

local M = {}

ffi.cdef [[
typedef struct { double a, b; } crossing_pair;
typedef union { double number; uint64_t bits; } crossing_cell;
typedef struct { crossing_cell cells[2]; } crossing_cells;
]]

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

return M
