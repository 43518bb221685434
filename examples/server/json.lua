--- Plain Lua values as JSON (RFC 8259): what a program says about itself.
local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\" }

local function quote(text)
  return '"' .. text:gsub('[%z\1-\31"\\]', function(c)
    return ESCAPES[c] or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local function encode(value)
  if type(value) == "table" then
    local items = {}
    for i, item in ipairs(value) do
      items[i] = encode(item)
    end
    if #items > 0 then
      return "[" .. table.concat(items, ",") .. "]"
    end
    for key, item in pairs(value) do
      items[#items + 1] = quote(tostring(key)) .. ":" .. encode(item)
    end
    table.sort(items)
    return "{" .. table.concat(items, ",") .. "}"
  elseif type(value) == "number" then
    return value - value == 0 and ("%.14g"):format(value) or "null"
  elseif type(value) == "string" then
    return quote(value)
  end
  return value == nil and "null" or tostring(value)
end

--- @param value nil, boolean, number, string (UTF-8), or a table of such: a list or by name
-- @treturn string objects have their keys in order
return encode
