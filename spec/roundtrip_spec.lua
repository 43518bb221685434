--- Values made at random, encoded and decoded: what comes out is what went in.
local treadle = require "treadle"
local ffi = require "ffi"

local ROUNDS = 20000

local seed = tonumber(os.getenv("TDL_SEED")) or os.time()
print("# TDL_SEED=" .. seed)

local random = math.random

local Point = {}
treadle.class("spec.roundtrip.Point", Point)
local Packed = {}
treadle.class("spec.roundtrip.Packed", Packed, function(o) return o[1] end, function(v)
  return setmetatable({ v }, Packed)
end)

-- --- making values -------------------------------------------------------------------------------

local NUMBERS = {
  0, -0, 1, -1, 0.1, 2 ^ 31, -2 ^ 31, 2 ^ 53, 2 ^ 1023, 5e-324, 1 / 0, -1 / 0, 0 / 0,
}
local LENGTHS = { 0, 1, 2, 31, 254, 255, 256, 257, 1000, 70000 }
local COUNTS = { 0, 1, 2, 3, 15, 16, 17, 40, 254, 255, 256, 300 }

local function one_of(list)
  return list[random(#list)]
end

local function make_string()
  local bytes = {}
  for i = 1, random(8) do
    bytes[i] = string.char(random(0, 255))
  end
  local text = table.concat(bytes)
  if random(10) == 1 then
    local length = one_of(LENGTHS)
    text = text:rep(math.ceil(length / #text)):sub(1, length)
  end
  return text
end

local function make_number()
  return random(3) == 1 and one_of(NUMBERS) or random(-1000, 1000) / one_of { 1, 1, 3, 1000 }
end

local make

-- `made` are the tables of this value, to be met again.
local function fill_array(t, depth, made)
  local count = random(4) == 1 and one_of(COUNTS) or random(0, 5)
  local is_plain = random(2) == 1
  for i = 1, count do
    if is_plain and random(60) > 1 then
      t[i] = make_number()
    else
      t[i] = make(count > 5 and 0 or depth - 1, made) -- may be nil: a hole
    end
  end
end

local function fill_pairs(t, depth, made)
  for _ = 1, random(0, 4) do
    local key = random(2) == 1 and make_string() or make_number()
    if random(8) == 1 then
      made.ids = made.ids + 1
      key = { id = made.ids } -- `same` finds it by this
    end
    if key == key then -- NaN is no key
      t[key] = make(depth - 1, made)
    end
  end
end

local function make_table(depth, made)
  local t = {}
  made[#made + 1] = t
  if random(6) > 1 then
    fill_array(t, depth, made)
  end
  if random(3) > 1 then
    fill_pairs(t, depth, made)
  end
  if random(8) == 1 then
    setmetatable(t, Point)
  end
  return t
end

local function make_cdata()
  local kind = random(4)
  if kind == 1 then
    return random(-2 ^ 31, 2 ^ 31 - 1) * 1LL * 2 ^ 31
  elseif kind == 2 then
    return 0xffffffffffffffffULL - random(0, 2 ^ 31 - 1)
  elseif kind == 3 then
    local array = ffi.new("double[?]", random(0, 5))
    for i = 0, ffi.sizeof(array) / 8 - 1 do
      array[i] = random(-100, 100)
    end
    return array
  end
  return ffi.new("int16_t[3]", random(-9, 9), random(-9, 9), random(-9, 9))
end

function make(depth, made)
  local kind = random(12)
  if kind == 1 then
    return nil
  elseif kind == 2 then
    return random(2) == 1
  elseif kind <= 4 then
    return make_number()
  elseif kind <= 6 or depth <= 0 then
    return make_string()
  elseif kind == 7 and #made > 0 then
    return one_of(made)
  elseif kind == 8 then
    return make_cdata()
  elseif kind == 9 then
    return setmetatable({ make(depth - 1, made) }, Packed)
  end
  return make_table(depth, made)
end

-- --- comparing them ------------------------------------------------------------------------------

local function same_number(a, b)
  return a == b and 1 / a == 1 / b or a ~= a and b ~= b
end

local function bytes_of(cdata)
  return ffi.string(ffi.cast("char *", cdata), ffi.sizeof(cdata))
end

local function same_cdata(a, b)
  if ffi.typeof(a) ~= ffi.typeof(b) then
    return false
  elseif ffi.istype("int64_t", a) or ffi.istype("uint64_t", a) then
    return a == b
  end
  return bytes_of(a) == bytes_of(b)
end

--- Whether two values are alike: the same shape, and tables met twice in the one are met twice in
-- the other. `twins` says which table stands for which.
local function same(a, b, twins)
  if type(a) ~= type(b) then
    return false
  elseif type(a) == "number" then
    return same_number(a, b)
  elseif type(a) == "cdata" then
    return same_cdata(a, b)
  elseif type(a) ~= "table" then
    return a == b
  elseif twins[a] or twins[b] then
    return twins[a] == b and twins[b] == a
  elseif getmetatable(a) ~= getmetatable(b) then
    return false
  end
  twins[a], twins[b] = b, a
  local by_id, count = {}, 0
  for key in pairs(b) do
    count = count + 1
    if type(key) == "table" then
      by_id[key.id] = key
    end
  end
  for key, value in pairs(a) do
    local twin = key
    if type(key) == "table" then
      twin = by_id[key.id]
      if twin == nil or not same(key, twin, twins) then
        return false
      end
    end
    count = count - 1
    if not same(value, rawget(b, twin), twins) then
      return false
    end
  end
  return count == 0
end

local function pack(...)
  return { n = select("#", ...), ... }
end

describe("random values", function()
  it("come back from encode and decode as they were", function()
    math.randomseed(seed)
    for round = 1, ROUNDS do
      local made = { ids = 0 }
      local n = random(0, 4)
      local values = {}
      for i = 1, n do
        values[i] = make(random(0, 5), made)
      end
      local back = pack(treadle.decode(treadle.encode(unpack(values, 1, n))))
      assert.equal(n, back.n)
      local twins = {}
      for i = 1, n do
        assert.is_true(same(values[i], back[i], twins), ("round %d, value %d"):format(round, i))
      end
    end
  end)

  -- A comparison that finds nothing must be seen to find something.
  it("are told apart", function()
    local t = {}
    for _, pair in ipairs {
      { 0, -0 }, { 1, "1" }, { {}, { 1 } }, { { 1 }, {} }, { { t, t }, { {}, {} } },
      { { {}, {} }, { t, t } }, { 1LL, 1ULL }, { 1LL, 2LL }, { {}, setmetatable({}, Point) },
      { ffi.new("double[?]", 1, 1), ffi.new("double[?]", 1, 2) },
      { ffi.new("double[?]", 1), ffi.new("double[?]", 2) },
      { { [{ id = 1 }] = 1 }, { [{ id = 1 }] = 2 } },
      { { [{ id = 1 }] = 1 }, { [{ id = 2 }] = 1 } },
    } do
      assert.is_false(same(pair[1], pair[2], {}))
    end
    assert.is_true(same({ 0 / 0, t, { t } }, { 0 / 0, t, { t } }, {}))
  end)
end)
