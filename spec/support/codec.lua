--- What the specs of the codec share: values to send, what compares them, and the ways of the
-- codec itself.
local assert = require "luassert"
local treadle = require "treadle"
local ffi = require "ffi"

local codec = {}

-- Only the test build of the codec has this: limits, decoding without code, the Lua API alone.
local has_module, module = pcall(require, "codec_module")
codec.module = has_module and module or nil

--- Registers with both: each image of the codec has classes of its own.
local function class(...)
  treadle.class(...)
  if has_module and module ~= treadle then
    module.class(...)
  end
end
codec.class = class

function codec.count(...)
  return select("#", ...)
end

--- The message of the error that fn(...) raises, without its position.
function codec.message_of(fn, ...)
  local fine, err = pcall(fn, ...)
  assert.is_false(fine)
  return (tostring(err):gsub("^[^:]+:%d+: ", ""))
end

--- The position that the error of fn(...) names.
function codec.position_of(fn, ...)
  local _, err = pcall(fn, ...)
  return tostring(err):match("^(.-:%d+): ")
end

function codec.bits_of(x)
  return ffi.new("union { double d; uint64_t u; }", { d = x }).u
end

--- Equal by value, shared references included.
local function same(a, b, seen)
  if type(a) ~= type(b) then
    return false
  end
  if type(a) == "cdata" then
    if ffi.typeof(a) ~= ffi.typeof(b) then
      return false
    end
    local n = ffi.sizeof(a)
    if ffi.istype("complex", a) then
      return a.re == b.re and a.im == b.im
    elseif ffi.istype("int64_t", a) or ffi.istype("uint64_t", a) then
      return a == b
    end
    return n == ffi.sizeof(b) and ffi.string(a, n) == ffi.string(b, n)
  end
  if type(a) ~= "table" then
    return a == b or (a ~= a and b ~= b)
  end
  if getmetatable(a) ~= getmetatable(b) then
    return false
  end
  seen = seen or {}
  if seen[a] then
    return seen[a] == b
  end
  seen[a] = b
  for k, v in next, a do
    if type(k) ~= "table" and not same(v, rawget(b, k), seen) then
      return false
    end
  end
  local a_count, b_count = 0, 0
  for _ in next, a do
    a_count = a_count + 1
  end
  for _ in next, b do
    b_count = b_count + 1
  end
  return a_count == b_count
end

codec.same = same

ffi.cdef [[
  struct codec_point { double x, y; };
  struct codec_nested { struct { int q; double z; }; int row[3]; unsigned b : 3; uint8_t c; };
  union codec_either { uint64_t u; double d; };
  enum codec_color { CODEC_RED, CODEC_GREEN };
  typedef struct { int a; float f[2]; } codec_anonymous;
  struct codec_node { int n; struct codec_node *next; };
  struct codec_vls { int n; double values[?]; };
]]

local Point = {}
Point.__index = Point
local function new_point(x, y)
  return setmetatable({ x = x, y = y }, Point)
end
class("codec_spec.Point", Point)

local Stack = {}
Stack.__index = Stack
local function new_stack(...)
  return setmetatable({ items = { ... }, cache = coroutine.create(print) }, Stack)
end
class("codec_spec.Stack", Stack, function(s)
  return s.items
end, function(items)
  return setmetatable({ items = items }, Stack)
end)

codec.Point, codec.new_point = Point, new_point
codec.Stack, codec.new_stack = Stack, new_stack

--- Payloads of every kind, by name.
function codec.corpus()
  local cycle = { name = "cycle" }
  cycle.self = cycle
  local shared = { 1, 2 }
  local numbers, mixed, wide, deep = {}, {}, {}, {}
  for i = 1, 100 do
    numbers[i] = i / 3
    mixed[i] = i % 25 == 0 and "x" or i
    wide["key" .. i] = { i }
  end
  for _ = 1, 130 do
    deep = { deep = deep, leaf = true }
  end
  local calls = 0
  local function recurse(n)
    calls = calls + 1
    return n == 0 and calls or recurse(n - 1)
  end
  return {
    nothing = { n = 0 },
    scalars = { n = 7, nil, true, false, 42, -0.5, "text", nil },
    strings = { n = 3, "", ("long"):rep(100), "\0\1\255" },
    flat = { n = 1, { a = 1, b = "two", c = true } },
    nested = { n = 2, { { 1, { 2, { 3 } } }, k = { v = {} } }, {} },
    cycle = { n = 1, cycle },
    shared = { n = 3, shared, { shared, k = shared }, shared },
    table_key = { n = 1, { [{ 1 }] = "a", [true] = "b", [1.5] = "c", [-1] = "d", [0] = "e" } },
    numbers = { n = 1, numbers },
    mixed = { n = 1, mixed },
    wide = { n = 1, wide },
    deep = { n = 1, deep },
    integers = { n = 2, -5LL, 0xffffffffffffffffULL },
    cdata = { n = 4, ffi.new("double[3]", 1, 2, 3), ffi.new("struct codec_point", 4, 5),
      ffi.new("complex", 1, -1), ffi.new("uint8_t[?]", 5, 9) },
    object = { n = 1, { new_point(1, 2), new_point(3, new_point(5, 6)) } },
    packed = { n = 1, { new_stack(1, { 2 }), new_stack() } },
    functions = { n = 2, recurse, { function(x) return x + 1 end, print } },
  }
end

local pause, stepmul

local function rush()
  pause = collectgarbage("setpause", 0)
  stepmul = collectgarbage("setstepmul", 4000)
end

local function rest()
  collectgarbage("setpause", pause)
  collectgarbage("setstepmul", stepmul)
end

--- The ways in which the claims must hold: `encode` and `decode` between `enter` and `leave`;
-- `scale` divides the sizes where a run is slow.
codec.ways = {
  { name = "", enter = function() end, leave = function() end },
  { name = " without the JIT compiler", enter = jit.off, leave = jit.on },
  { name = " under a collector that never rests", enter = rush, leave = rest, scale = 400 },
  {
    name = " by the Lua API alone", image = codec.module,
    enter = function() module.use_raw(false) end, leave = function() module.use_raw(true) end,
  },
  {
    name = " by the Lua API alone, under a collector that never rests", image = codec.module,
    enter = function() rush() module.use_raw(false) end,
    leave = function() rest() module.use_raw(true) end,
    scale = 400,
  },
}
if not has_module then
  codec.ways[5], codec.ways[4] = nil, nil -- codec_tables_spec says so
end
for _, way in ipairs(codec.ways) do
  local image = way.image or treadle
  way.encode, way.decode, way.scale = image.encode, image.decode, way.scale or 1
end

return codec
