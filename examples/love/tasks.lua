--- What the workers draw: tiles of the Mandelbrot set. They are no LÖVE: there is no `love` here.
local ffi = require "ffi"

local tasks = {}

local STEPS = 400

local function color(step)
  if step == STEPS then
    return 0, 0, 0
  end
  local t = math.sqrt(step / STEPS)
  return math.floor(255 * t), math.floor(255 * t * t), math.floor(128 + 127 * math.sin(6 * t))
end

local function escape(cx, cy)
  local x, y = 0, 0
  for step = 0, STEPS - 1 do
    local xx, yy = x * x, y * y
    if xx + yy > 4 then
      return step
    end
    x, y = xx - yy + cx, 2 * x * y + cy
  end
  return STEPS
end

--- The pixels of a square, as the bytes that love.image.newImageData takes.
-- @tparam table view `x`, `y` of the window's left upper corner, `scale` of a pixel
-- @tparam number left, top in pixels
-- @tparam number size
function tasks.tile(view, left, top, size)
  local bytes = ffi.new("uint8_t[?]", size * size * 4)
  for row = 0, size - 1 do
    local cy = view.y + (top + row) * view.scale
    for column = 0, size - 1 do
      local at = (row * size + column) * 4
      local r, g, b = color(escape(view.x + (left + column) * view.scale, cy))
      bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3] = r, g, b, 255
    end
  end
  return ffi.string(bytes, size * size * 4)
end

return tasks
