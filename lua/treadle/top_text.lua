--- What a view writes: numbers with their units, and text of a known width on a terminal.
-- @module treadle.top_text
local M = {}

-- --- width ---------------------------------------------------------------------------------------

--- First and last code points that take no column, and two.
local NONE = { { 0x300, 0x36f }, { 0x200b, 0x200f }, { 0x20d0, 0x20ff }, { 0xfe00, 0xfe0f } }
local WIDE = {
  { 0x1100, 0x115f }, { 0x2e80, 0xa4cf }, { 0xac00, 0xd7a3 }, { 0xf900, 0xfaff },
  { 0xfe30, 0xfe6f }, { 0xff00, 0xff60 }, { 0xffe0, 0xffe6 }, { 0x1f300, 0x1faff },
  { 0x20000, 0x3fffd },
}

local function is_in(ranges, code)
  for _, range in ipairs(ranges) do
    if code >= range[1] and code <= range[2] then
      return true
    end
  end
  return false
end

--- How many bytes a sequence has, and the smallest code that needs so many.
local function shape(lead)
  if lead < 0x80 then
    return 1, 0
  elseif lead >= 0xc2 and lead < 0xe0 then
    return 2, 0x80
  elseif lead >= 0xe0 and lead < 0xf0 then
    return 3, 0x800
  elseif lead >= 0xf0 and lead < 0xf5 then
    return 4, 0x10000
  end
end

--- The character at a byte: its code and where the next one begins; no code where it is no UTF-8.
local function decode(text, at)
  local lead = text:byte(at)
  local size, least = shape(lead)
  if not size or at + size - 1 > #text then
    return nil, at + 1
  end
  local code = size == 1 and lead or lead % 2 ^ (7 - size)
  for i = at + 1, at + size - 1 do
    local byte = text:byte(i)
    if byte < 0x80 or byte > 0xbf then
      return nil, at + 1
    end
    code = code * 64 + byte - 0x80
  end
  if code < least or code > 0x10ffff or code >= 0xd800 and code <= 0xdfff then
    return nil, at + 1
  end
  return code, at + size
end

local function is_control(code)
  return code < 0x20 or code >= 0x7f and code < 0xa0 or code >= 0x2028 and code <= 0x202e
    or code >= 0x2066 and code <= 0x2069
end

--- The characters of a text: an iterator of the text of each and its columns. What would move the
-- cursor, or is no UTF-8, comes as "?".
local function characters(text)
  local at = 1
  return function()
    if at > #text then
      return nil
    end
    local first = at
    local code, after = decode(text, at)
    at = after
    if not code or is_control(code) then
      return "?", 1
    end
    return text:sub(first, at - 1), is_in(NONE, code) and 0 or is_in(WIDE, code) and 2 or 1
  end
end

--- How many columns a text takes.
function M.width(text)
  if not text:find "[^ -~]" then
    return #text
  end
  local n = 0
  for _, columns in characters(text) do
    n = n + columns
  end
  return n
end

--- A text that moves no cursor, in at most `width` columns: what is longer ends with an ellipsis.
-- @tparam[opt] boolean ascii the ellipsis is a dot
function M.cut(text, width, ascii)
  local parts, columns, fits, fitting = {}, 0, 0, 0
  for character, more in characters(text) do
    parts[#parts + 1] = character
    columns = columns + more
    if columns < width then -- with an ellipsis behind it
      fits, fitting = #parts, columns
    end
  end
  if columns <= width then
    return table.concat(parts), columns
  elseif width < 1 then
    return "", 0
  end
  return table.concat(parts, "", 1, fits) .. (ascii and "." or "…"), fitting + 1
end

--- The same, filled up to `width` with spaces.
function M.fit(text, width, to_the_right, ascii)
  local columns
  text, columns = M.cut(text, width, ascii)
  local fill = (" "):rep(width - columns)
  return to_the_right and fill .. text or text .. fill
end

-- --- numbers -------------------------------------------------------------------------------------

--- Three digits: "1.23", "12.3", "123".
local function three(value)
  return (value < 9.995 and "%.2f" or value < 99.95 and "%.1f" or "%.0f"):format(value)
end

--- A value in the largest of some units that gives it at least 1; each is `{ size, name }`, the
-- largest first.
local function scaled(value, units)
  for _, unit in ipairs(units) do
    if value >= unit[1] * 0.9995 then
      return three(value / unit[1]) .. unit[2]
    end
  end
  local last = units[#units]
  return three(value / last[1]) .. last[2]
end

local COUNTS = { { 1e12, "T" }, { 1e9, "G" }, { 1e6, "M" }, { 1e3, "k" } }

--- A number of things: "7", "9,999", "12.3k".
function M.count(value)
  if value >= 9999.5 then
    return scaled(value, COUNTS)
  end
  return ((("%.0f"):format(value)):gsub("^(%d)(%d%d%d)$", "%1,%2"))
end

--- A number of things in a second: "0", "0.25", "12.3", "9,999", "12.3k".
function M.rate(value)
  if value <= 0 then
    return "0"
  elseif value < 99.95 then
    return three(value)
  end
  return M.count(value)
end

local TIMES = { { 1, "s" }, { 1e-3, "ms" }, { 1e-6, "µs" } }
local ASCII_TIMES = { { 1, "s" }, { 1e-3, "ms" }, { 1e-6, "us" } }

--- Seconds: "0", "0.85µs", "12.3ms", "1.23s", "2m05s", "3h07m", "4d02h".
function M.seconds(value, ascii)
  if value <= 0 then
    return "0"
  elseif value < 99.95 then
    return scaled(value, ascii and ASCII_TIMES or TIMES)
  end
  local whole = math.floor(value + 0.5)
  if whole < 3600 then
    return ("%dm%02ds"):format(math.floor(whole / 60), whole % 60)
  elseif whole < 86400 then
    return ("%dh%02dm"):format(math.floor(whole / 3600), math.floor(whole / 60) % 60)
  end
  return ("%dd%02dh"):format(math.floor(whole / 86400), math.floor(whole / 3600) % 24)
end

local BYTES = { { 2 ^ 40, "TiB" }, { 2 ^ 30, "GiB" }, { 2 ^ 20, "MiB" }, { 2 ^ 10, "KiB" } }

--- "0", "512B", "12.3KiB"
function M.bytes(value)
  if value < 1000 then
    return value < 0.5 and "0" or ("%.0fB"):format(value)
  end
  return scaled(value, BYTES)
end

--- A part of 1: "98%"
function M.share(value)
  return ("%.0f%%"):format(value * 100)
end

--- A bar of `width` columns, as its full and its empty part.
function M.bar(share, width, ascii)
  local full = math.floor(math.max(0, math.min(1, share)) * width + 0.5)
  return (ascii and "#" or "█"):rep(full), (ascii and "." or "░"):rep(width - full)
end

return M
