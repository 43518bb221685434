--- The tasks of examples/engine: heights of a landscape, a chunk of it at a time. Knows nothing of
-- treadle but that `chunk` gets a buffer; the engine calls `fill` in a state of its own, too.
local bit = require "bit"
local ffi = require "ffi"
local band, bxor, rshift, tobit = bit.band, bit.bxor, bit.rshift, bit.tobit
local floor = math.floor

local terrain = {}

local OCTAVES = 9 -- from hills as wide as CELL to bumps of a pixel
local CELL = 384
local RIDGES = 4 -- so many of them have crests in the place of domes

--- A number from 0 to 1 for a point of the grid, the same wherever it is asked.
local function random(x, y, seed)
  local h = tobit(tobit(x * 374761) + tobit(y * 668265) + seed * 974634)
  h = tobit(bxor(h, rshift(h, 13)) * 1274126)
  h = tobit(bxor(h, rshift(h, 15)) * 463856)
  return band(bxor(h, rshift(h, 16)), 0xffffff) / 0xffffff
end

--- Between the four points of the grid around it, without a crease.
local function noise(x, y, seed)
  local left, top = floor(x), floor(y)
  local u, v = x - left, y - top
  u, v = u * u * u * (u * (u * 6 - 15) + 10), v * v * v * (v * (v * 6 - 15) + 10)
  local a, b = random(left, top, seed), random(left + 1, top, seed)
  local c, d = random(left, top + 1, seed), random(left + 1, top + 1, seed)
  local upper, lower = a + u * (b - a), c + u * (d - c)
  return upper + v * (lower - upper)
end

local function height(x, y, seed)
  local sum, weight, all, scale = 0, 1, 0, 1 / CELL
  for octave = 1, OCTAVES do
    local n = noise(x * scale, y * scale, seed + octave)
    if octave <= RIDGES then
      n = 1 - math.abs(2 * n - 1)
      n = n * n
    end
    sum, all = sum + n * weight, all + weight
    weight, scale = weight * 0.5, scale * 2
  end
  return sum / all
end

--- Heights from 0 to 1 of a square of `size` times `size`, row by row.
-- @param heights a pointer to floats
-- @param x where it is, in pixels
function terrain.fill(heights, x, y, size, seed)
  heights = ffi.cast("float *", heights)
  for row = 0, size - 1 do
    for column = 0, size - 1 do
      heights[row * size + column] = height(x + column, y + row, seed)
    end
  end
end

--- The task: the same into a buffer that the engine shares.
function terrain.chunk(buffer, x, y, size, seed)
  terrain.fill(buffer.ptr, x, y, size, seed)
end

return terrain
