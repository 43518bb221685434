--- Writes PNG images, without any library: RGB, 8 bits a channel, stored without compression.
-- The format: https://www.w3.org/TR/png/ (chunks, CRC-32), RFC 1950 and 1951 (zlib, deflate).
local bit = require "bit"
local ffi = require "ffi"
local band, bxor, rshift, tobit = bit.band, bit.bxor, bit.rshift, bit.tobit

local SIGNATURE = "\137PNG\r\n\26\n"
local BLOCK_BYTES = 65535 -- the most that one stored deflate block holds

local png = {}

local crc_table = ffi.new("int32_t[256]")
for i = 0, 255 do
  local crc = i
  for _ = 1, 8 do
    crc = bxor(rshift(crc, 1), band(crc, 1) * tobit(0xEDB88320))
  end
  crc_table[i] = crc
end

local function big_endian_32(n)
  return string.char(band(rshift(n, 24), 255), band(rshift(n, 16), 255), band(rshift(n, 8), 255),
    band(n, 255))
end

local function little_endian_16(n)
  return string.char(band(n, 255), rshift(n, 8))
end

--- CRC-32 of a string, as a signed 32-bit number.
function png.crc32(data)
  local bytes = ffi.cast("const uint8_t *", data)
  local crc = -1
  for i = 0, #data - 1 do
    crc = bxor(rshift(crc, 8), crc_table[band(bxor(crc, bytes[i]), 255)])
  end
  return bit.bnot(crc)
end

--- Adler-32 of a string, as a signed 32-bit number.
function png.adler32(data)
  local bytes = ffi.cast("const uint8_t *", data)
  local a, b = 1, 0
  for i = 0, #data - 1 do
    a = (a + bytes[i]) % 65521
    b = (b + a) % 65521
  end
  return tobit(b * 65536 + a)
end

local function chunk(kind, data)
  return big_endian_32(#data) .. kind .. data .. big_endian_32(png.crc32(kind .. data))
end

-- A zlib stream of stored blocks.
local function zlib_stored(data)
  local parts = { "\120\1" }
  for first = 1, #data, BLOCK_BYTES do
    local block = data:sub(first, first + BLOCK_BYTES - 1)
    parts[#parts + 1] = first + BLOCK_BYTES > #data and "\1" or "\0" -- 1 marks the last block
    parts[#parts + 1] = little_endian_16(#block)
    parts[#parts + 1] = little_endian_16(BLOCK_BYTES - #block)
    parts[#parts + 1] = block
  end
  parts[#parts + 1] = big_endian_32(png.adler32(data))
  return table.concat(parts)
end

--- Encode an image.
-- @param rgb the pixels, three bytes each, row by row from the top left
-- @return the bytes of the PNG file
function png.encode(width, height, rgb)
  assert(width >= 1 and height >= 1 and #rgb == width * height * 3, "image of the wrong size")
  local rows = {}
  for y = 0, height - 1 do
    rows[y + 1] = rgb:sub(y * width * 3 + 1, (y + 1) * width * 3)
  end
  local header = big_endian_32(width) .. big_endian_32(height) .. "\8\2\0\0\0"
  local scanlines = "\0" .. table.concat(rows, "\0") -- each row starts with its filter: none
  return SIGNATURE .. chunk("IHDR", header) .. chunk("IDAT", zlib_stored(scanlines))
    .. chunk("IEND", "")
end

return png
