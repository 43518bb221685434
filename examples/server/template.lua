--- Templates: text with {{ expression }}, whose value is escaped, and {% Lua code %} in between.

local ESCAPES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local function escape(value)
  return (tostring(value):gsub('[&<>"]', ESCAPES))
end

--- Compile a template.
-- @tparam string text
-- @tparam string name for error messages
-- @treturn function(values): the text; `values` are the globals of the template's code
return function(text, name)
  local code, at = { "local out, escape = ... " }, 1
  local function add(format, piece)
    code[#code + 1] = format:format(piece)
  end
  while true do
    local first, last, kind, inside = text:find("{([{%%])%s*(.-)%s*[}%%]}", at)
    add("out[#out + 1] = %q ", text:sub(at, (first or 0) - 1))
    if not first then
      break
    end
    add(kind == "{" and "out[#out + 1] = escape(%s) " or "%s ", inside)
    at = last + 1
  end
  local render = assert(loadstring(table.concat(code), "=" .. name))
  return function(values)
    local out = {}
    setfenv(render, setmetatable(values, { __index = _G }))(out, escape)
    return table.concat(out)
  end
end
