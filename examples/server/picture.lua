--- Pictures as bytes in shared buffers: painted, read from a PPM file, made smaller.
-- A picture is { width =, height =, rgb = pointer or FFI array, offset = of its first byte }.
local ffi = require "ffi"
local treadle = require "treadle"

local picture = {}

local HEADER_BYTES = 512 -- a PPM file's numbers and comments have to be within

--- Paint rings around two centres.
function picture.paint(width, height)
  local rgb = ffi.new("uint8_t[?]", width * height * 3)
  for y = 0, height - 1 do
    for x = 0, width - 1 do
      local u, v = x / width - 0.3, y / height - 0.4
      local s, t = x / width - 0.8, y / height - 0.7
      local at = (y * width + x) * 3
      rgb[at] = 127.5 + 127.5 * math.sin(60 * math.sqrt(u * u + v * v))
      rgb[at + 1] = 127.5 + 127.5 * math.sin(45 * math.sqrt(s * s + t * t))
      rgb[at + 2] = 255 * y / height
    end
  end
  return { width = width, height = height, rgb = rgb, offset = 0 }
end

--- Read a binary PPM file ("P6", 8 bits), in place.
-- @param buffer of bytes
-- @return the picture; or nil and what is wrong
function picture.read_ppm(buffer)
  local head = buffer:string(0, math.min(#buffer, HEADER_BYTES))
  local at = head:match("^P6()")
  if not at then
    return nil, "this is no PPM file (P6)"
  end
  local numbers = {}
  for i = 1, 3 do
    local from = at
    repeat
      at = from
      from = head:match("^%s+()", from) or from
      from = head:match("^#[^\n]*\n()", from) or from
    until from == at
    local digits, after = head:match("^(%d+)()", at)
    if not digits or #digits > 6 then
      return nil, "the file's head is wrong"
    end
    numbers[i], at = tonumber(digits), after
  end
  local width, height, most = unpack(numbers)
  if most ~= 255 or not head:find("^%s", at) then
    return nil, "the file has to have 8 bits a channel"
  elseif width < 1 or height < 1 or #buffer - at ~= width * height * 3 then
    return nil, "the file has not as many pixels as it says"
  end
  return { width = width, height = height, rgb = buffer.ptr, offset = at }
end

--- Make a picture smaller: each new pixel is the mean of the box of pixels that it covers.
-- @tparam number size of the longer side; a picture that is smaller already keeps its size
-- @treturn table a picture
function picture.shrink(source, size)
  local scale = math.min(size / math.max(source.width, source.height), 1)
  local width = math.max(math.floor(source.width * scale + 0.5), 1)
  local height = math.max(math.floor(source.height * scale + 0.5), 1)
  local from, to = source.rgb + source.offset, ffi.new("uint8_t[?]", width * height * 3)
  for y = 0, height - 1 do
    local top = math.floor(y * source.height / height)
    local bottom = math.max(math.floor((y + 1) * source.height / height), top + 1)
    for x = 0, width - 1 do
      local left = math.floor(x * source.width / width)
      local right = math.max(math.floor((x + 1) * source.width / width), left + 1)
      local r, g, b = 0, 0, 0
      for j = top, bottom - 1 do
        for i = (j * source.width + left) * 3, (j * source.width + right - 1) * 3, 3 do
          r, g, b = r + from[i], g + from[i + 1], b + from[i + 2]
        end
      end
      local n, at = (bottom - top) * (right - left), (y * width + x) * 3
      to[at], to[at + 1], to[at + 2] = r / n + 0.5, g / n + 0.5, b / n + 0.5
    end
    treadle.check()
  end
  return { width = width, height = height, rgb = to, offset = 0 }
end

return picture
