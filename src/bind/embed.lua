--- Compiles Lua modules and writes them down as a C table (embedded.h).
-- A file that is no Lua becomes a module that returns its text.
-- usage: luajit src/bind/embed.lua OUTPUT lua/treadle/init.lua ...
local output = arg[1]

--- "lua/treadle/future.lua" is required as "treadle.future".
local function module_name(path)
  local name = path:gsub("^lua/", ""):gsub("%.%a+$", ""):gsub("/", ".")
  return (name:gsub("%.init$", ""))
end

--- Bytecode with its debug information, so that tracebacks name the source.
local function compile(path)
  local file = assert(io.open(path, "rb"))
  local source = file:read("*a")
  file:close()
  if not path:match "%.lua$" then
    source = ("return %q"):format(source)
  end
  local chunk, err = loadstring(source, "@" .. path)
  if not chunk then
    io.stderr:write(err, "\n")
    os.exit(1)
  end
  return string.dump(chunk, false)
end

local function c_bytes(bytes)
  local lines = {}
  for first = 1, #bytes, 20 do
    local line = { bytes:byte(first, first + 19) }
    lines[#lines + 1] = "  " .. table.concat(line, ",")
  end
  return table.concat(lines, ",\n")
end

local modules = {}
for i = 2, #arg do
  modules[#modules + 1] = { name = module_name(arg[i]), path = arg[i] }
end
table.sort(modules, function(a, b) return a.name < b.name end)

local out = { "/* Written by src/bind/embed.lua. */", '#include "bind/embedded.h"', "" }
for i, module in ipairs(modules) do
  module.bytes = compile(module.path)
  out[#out + 1] = ("static const unsigned char code_%d[] = {\n%s\n};"):format(
    i, c_bytes(module.bytes))
end
out[#out + 1] = "const struct tdl_embedded tdl_embedded[] = {"
for i, module in ipairs(modules) do
  out[#out + 1] = ('  {"%s", code_%d, %d},'):format(module.name, i, #module.bytes)
end
out[#out + 1] = "  {NULL, NULL, 0}\n};\n"

local file = assert(io.open(output, "wb"))
assert(file:write(table.concat(out, "\n")))
assert(file:close())
