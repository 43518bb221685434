--- Writes the seeds of decode_fuzz: luajit spec/fuzz/make_corpus.lua DIRECTORY
-- (with treadle on the path).
local codec = require "treadle"
local ffi = require "ffi"
ffi.cdef [[
  struct point { double x, y; };
  struct pair { struct point a; float f[3]; int n; };
]]

local Object, Packed = {}, {}
codec.class("P", Object)
codec.class("S", Packed, function(o) return o[1] end, function(v)
  return setmetatable({ v }, Packed)
end)

local numbers, deep = {}, { "end" }
for i = 1, 30 do
  numbers[i] = i
end
for i = 1, 105 do
  deep = i == 60 and setmetatable({ deep }, Packed) or { deep }
end
local cycle = {}
cycle[cycle] = { cycle }

local seeds = {
  scalars = { nil, true, false, 1.5, "text", ("long"):rep(70) },
  tables = { { 1, { 2, x = "y" } }, { [1.5] = true, [-1] = {} } },
  cycle = { cycle, cycle },
  numbers = { numbers },
  deep = { deep },
  objects = {
    setmetatable({ 1, v = 2 }, Object),
    setmetatable({ setmetatable({ 1 }, Packed) }, Packed),
  },
  cdata = { 1LL, 2ULL, ffi.new("struct pair"), ffi.new("double[?]", 2), ffi.new("complex[2]") },
  code = { print },
}

local function write(name, bytes)
  local file = assert(io.open(arg[1] .. "/" .. name .. ".bin", "wb"))
  file:write(bytes)
  file:close()
end

for name, values in pairs(seeds) do
  write(name, (codec.encode(unpack(values, 1, 6))))
end

-- A hundred tables in each other, each of which claims the same 2,000 bytes.
write("claims", "\1\1" .. ("\7\208\7\0\0\0\0\0\0"):rep(100) .. ("\0"):rep(2000))
