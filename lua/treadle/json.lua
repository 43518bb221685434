--- JSON, as far as traces need it: RFC 8259, https://www.rfc-editor.org/rfc/rfc8259
-- @module treadle.json
local M = {}

--- What `null` is read as.
M.null = setmetatable({}, { __tostring = function() return "null" end })

-- --- writing -----------------------------------------------------------------------------------

local ESCAPES = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
}

local function escape(c)
  return ESCAPES[c] or ("\\u%04x"):format(c:byte())
end

--- How long the UTF-8 character at `at` is, nil where there is none (RFC 3629).
local function character(s, at)
  local a, b = s:byte(at, at + 1)
  if a < 0x80 then
    return 1
  end
  local n = a >= 0xC2 and a <= 0xDF and 2 or a >= 0xE0 and a <= 0xEF and 3
    or a >= 0xF0 and a <= 0xF4 and 4
  if not n or not s:find("^" .. ("[\128-\191]"):rep(n - 1), at + 1)
    or a == 0xE0 and b < 0xA0 or a == 0xED and b > 0x9F or a == 0xF0 and b < 0x90
    or a == 0xF4 and b > 0x8F then
    return nil
  end
  return n
end

--- A string as JSON has it. Bytes that are no UTF-8 become U+FFFD.
function M.quote(s)
  if s:find "[\128-\255]" then
    local out, at = {}, 1
    while at <= #s do
      local n = character(s, at)
      out[#out + 1] = n and s:sub(at, at + n - 1) or "\239\191\189"
      at = at + (n or 1)
    end
    s = table.concat(out)
  end
  return '"' .. s:gsub('[%c"\\\127]', escape) .. '"'
end

-- --- reading -----------------------------------------------------------------------------------

local UNESCAPES = {
  ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
}

local LITERALS = { ["true"] = true, ["false"] = false, ["null"] = M.null }

local function fail(at, what)
  error({ at = at, what = what }, 0)
end

local function utf8(code)
  if code < 0x80 then
    return string.char(code)
  elseif code < 0x800 then
    return string.char(0xC0 + math.floor(code / 64), 0x80 + code % 64)
  elseif code < 0x10000 then
    return string.char(0xE0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64,
      0x80 + code % 64)
  end
  return string.char(0xF0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
    0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

--- `at` is behind the quote; returns the string and where it goes on.
local function read_string(s, at)
  local stop = s:find('[%c"\\]', at)
  if stop and s:byte(stop) == 34 then -- the most frequent case
    return s:sub(at, stop - 1), stop + 1
  end
  local out = {}
  while true do
    if not stop then
      fail(#s + 1, "a string without an end")
    end
    out[#out + 1] = s:sub(at, stop - 1)
    local c = s:sub(stop, stop)
    if c == '"' then
      return table.concat(out), stop + 1
    elseif c ~= "\\" then
      fail(stop, "a control character in a string")
    end
    local kind = s:sub(stop + 1, stop + 1)
    if kind == "u" then
      local code = tonumber(s:match("^%x%x%x%x", stop + 2) or fail(stop, "a wrong escape"), 16)
      at = stop + 6
      if code >= 0xD800 and code < 0xDC00 then
        local low = tonumber(s:match("^\\u([dD][c-fC-F]%x%x)", at) or "", 16)
        if low then
          code, at = 0x10000 + (code - 0xD800) * 0x400 + (low - 0xDC00), at + 6
        end
      end
      out[#out + 1] = utf8(code)
    else
      out[#out + 1] = UNESCAPES[kind] or fail(stop, "a wrong escape")
      at = stop + 2
    end
    stop = s:find('[%c"\\]', at)
  end
end

local read_value

local function skip(s, at)
  return s:find("[^ \t\r\n]", at) or #s + 1
end

local function read_array(s, at, depth)
  local list, n = {}, 0
  at = skip(s, at)
  if s:byte(at) == 93 then -- ]
    return list, at + 1
  end
  while true do
    n = n + 1
    list[n], at = read_value(s, at, depth)
    at = skip(s, at)
    local c = s:byte(at)
    if c == 93 then
      return list, at + 1
    elseif c ~= 44 then -- ,
      fail(at, "',' or ']' expected")
    end
    at = skip(s, at + 1)
  end
end

local function read_object(s, at, depth)
  local object = {}
  at = skip(s, at)
  if s:byte(at) == 125 then -- }
    return object, at + 1
  end
  while true do
    local key
    if s:byte(at) ~= 34 then -- "
      fail(at, "a name in quotes expected")
    end
    key, at = read_string(s, at + 1)
    at = skip(s, at)
    if s:byte(at) ~= 58 then -- :
      fail(at, "':' expected")
    end
    object[key], at = read_value(s, skip(s, at + 1), depth)
    at = skip(s, at)
    local c = s:byte(at)
    if c == 125 then
      return object, at + 1
    elseif c ~= 44 then
      fail(at, "',' or '}' expected")
    end
    at = skip(s, at + 1)
  end
end

function read_value(s, at, depth)
  local c = s:byte(at)
  if depth > 200 then
    fail(at, "too deep")
  elseif c == 123 then
    return read_object(s, at + 1, depth + 1)
  elseif c == 91 then
    return read_array(s, at + 1, depth + 1)
  elseif c == 34 then
    return read_string(s, at + 1)
  end
  local word = s:match("^%a+", at)
  if word and LITERALS[word] ~= nil then
    return LITERALS[word], at + #word
  end
  local number = s:match("^-?%d+%.?%d*[eE]?[+-]?%d*", at)
  if not number or not tonumber(number) or number:find "^-?0%d" or number:find "%.$"
    or number:find "%.[eE]" then
    fail(at, "a value expected")
  end
  return tonumber(number), at + #number
end

--- Read one value; nothing may follow it.
-- @return the value: tables, strings, numbers, booleans, `null`; or nil and what is wrong
function M.decode(s)
  local ok, value = pcall(function()
    local v, stop = read_value(s, skip(s, 1), 0)
    stop = skip(s, stop)
    if stop <= #s then
      fail(stop, "something follows the end")
    end
    return v, stop
  end)
  if ok then
    return value
  elseif type(value) ~= "table" then
    error(value, 0)
  end
  local line = 1
  for _ in s:sub(1, value.at - 1):gmatch "\n" do
    line = line + 1
  end
  return nil, ("line %d: %s"):format(line, value.what)
end

return M
