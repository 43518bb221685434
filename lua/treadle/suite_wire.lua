--- What a file of specs tells `treadle test`, as bytes: plain values, each with its length.
-- Whoever runs the file may be another LuaJIT, without treadle, so this is plain Lua, and a
-- function without upvalues, which can be sent there.
-- @module treadle.suite_wire
local function make()
  local M = {}

  --- How many values one may hold: an error object may hang together with all that there is.
  local LIMIT = 20000

  local add

  local function add_table(out, t, open)
    open[t] = true
    out[#out + 1] = "{"
    for k, v in next, t do
      local kind = type(k)
      if (kind == "string" or kind == "number" or kind == "boolean") and type(v) ~= "function" then
        add(out, k, open)
        add(out, v, open)
      end
    end
    out[#out + 1] = "}"
    open[t] = nil
  end

  --- Tables lose their metatables and functions; what is no plain value becomes its name.
  function add(out, v, open)
    local kind = type(v)
    open.left = open.left - 1
    if kind == "string" then
      out[#out + 1] = ("s%d:"):format(#v)
      out[#out + 1] = v
    elseif kind == "number" then
      out[#out + 1] = ("n%.17g:"):format(v)
    elseif kind == "boolean" then
      out[#out + 1] = v and "T" or "F"
    elseif kind == "nil" then
      out[#out + 1] = "N"
    elseif kind == "table" and not open[v] and open.left > 0 then
      add_table(out, v, open)
    else
      local ok, text = pcall(tostring, v)
      add(out, ok and type(text) == "string" and text or kind, open)
    end
  end

  --- @return a string that says how long it is
  function M.encode(...)
    local out = { "" }
    for i = 1, select("#", ...) do
      add(out, (select(i, ...)), { left = LIMIT })
    end
    local text = table.concat(out)
    return ("%d:%s"):format(#text, text)
  end

  local take

  local function take_table(text, at)
    local t = {}
    while text:byte(at) ~= 125 do -- }
      local k, v
      k, at = take(text, at)
      v, at = take(text, at)
      t[k] = v
    end
    return t, at + 1
  end

  function take(text, at)
    local tag = text:sub(at, at)
    if tag == "s" then
      local _, stop, size = text:find("^(%d+):", at + 1)
      return text:sub(stop + 1, stop + size), stop + size + 1
    elseif tag == "n" then
      local _, stop, number = text:find("^([^:]+):", at + 1)
      return tonumber(number), stop + 1
    elseif tag == "{" then
      return take_table(text, at + 1)
    end
    if tag == "N" then
      return nil, at + 1
    end
    return tag == "T", at + 1
  end

  --- The values of what `encode` made, without its length.
  -- @return a table of them, with how many they are in `n`
  function M.decode(text)
    local values, at = { n = 0 }, 1
    while at <= #text do
      values.n = values.n + 1
      values[values.n], at = take(text, at)
    end
    return values
  end

  --- Take what is whole off a list of pieces: calls `each(text)` for every encoded record.
  -- @tparam string text what came
  -- @treturn string the rest
  function M.split(text, each)
    local at = 1
    while true do
      local _, stop, size = text:find("^(%d+):", at)
      if not stop or stop + size > #text then
        return text:sub(at)
      end
      each(text:sub(stop + 1, stop + size))
      at = stop + size + 1
    end
  end

  return M
end

local M = make()
M.make = make
return M
