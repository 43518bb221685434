local treadle = require "treadle"
local ffi = require "ffi"

local encode, decode = treadle.encode, treadle.decode

-- Only the test build of the codec has these: limits and decoding without code.
local has_module, module = pcall(require, "codec_module")

--- Registers with both: each image of the codec has classes of its own.
local function class(...)
  treadle.class(...)
  if has_module and module ~= treadle then
    module.class(...)
  end
end

local function trip(...)
  return decode(encode(...))
end

local function count(...)
  return select("#", ...)
end

--- The message of the error that fn(...) raises, without its position.
local function message_of(fn, ...)
  local fine, err = pcall(fn, ...)
  assert.is_false(fine)
  return (tostring(err):gsub("^[^:]+:%d+: ", ""))
end

--- The position that the error of fn(...) names.
local function position_of(fn, ...)
  local _, err = pcall(fn, ...)
  return tostring(err):match("^(.-:%d+): ")
end

local function bits_of(x)
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

--- Payloads of every kind, by name.
local function corpus()
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

--- All claims; `scale` divides the sizes where a run is slow.
local function suite(scale)
  describe("scalars", function()
    it("keep nil, true, false, numbers and strings", function()
      assert.same({ nil, true, false, 42, "x" }, { trip(nil, true, false, 42, "x") })
    end)

    it("keep the number of values, trailing and middle nils included", function()
      assert.equal(0, count(trip()))
      assert.equal(1, count(trip(nil)))
      assert.equal(5, count(trip(nil, 1, nil, nil, nil)))
      assert.equal(300, count(trip(unpack({}, 1, 300))))
      assert.equal(5000, count(trip(unpack({}, 1, 5000))))
    end)

    it("keep infinities, the sign of zero, denormals and the largest integers", function()
      for _, x in ipairs { 1 / 0, -1 / 0, 0, -0, 5e-324, 2 ^ 53, -2 ^ 53,
        1.7976931348623157e308 } do
        assert.equal(bits_of(x), bits_of((trip(x))))
      end
      local nan = trip(0 / 0)
      assert.is_true(nan ~= nan)
    end)

    it("keep strings of any bytes and any length", function()
      for _, n in ipairs { 0, 1, 254, 255, 256, 257, 65535, 65536, 1e6 } do
        local s = ("\0a\255"):rep(n):sub(1, n)
        assert.is_true(trip(s) == s)
      end
    end)

    it("take at most 12 bytes for a number", function()
      assert.is_true(#encode(1e300) <= 12)
    end)
  end)

  describe("tables", function()
    it("arrive as deep copies", function()
      local t = { 1, { 2, { 3 } }, k = { v = { w = "x" } } }
      local u = trip(t)
      assert.is_true(same(t, u))
      assert.is_true(t ~= u and t[2] ~= u[2])
    end)

    it("keep keys of every type", function()
      local key = { 1 }
      local u = trip { key, [true] = 1, [false] = 2, [1.5] = 3, [-1] = 4, [0] = 5, [2 ^ 53] = 6,
        [1 / 0] = 7, ["\0"] = 8, [key] = 9, [print] = 10 }
      assert.equal(1, u[true])
      assert.equal(2, u[false])
      assert.equal(3, u[1.5])
      assert.equal(4, u[-1])
      assert.equal(5, u[0])
      assert.equal(6, u[2 ^ 53])
      assert.equal(7, u[1 / 0])
      assert.equal(8, u["\0"])
      assert.equal(9, u[u[1]])
      assert.equal(10, u[print])
    end)

    it("keep holes", function()
      for _, t in ipairs {
        { 1, nil, 3 }, { nil, nil, 3 }, { [0] = 0, 1, 2, [5] = 5 }, { [2] = 2 }, { nil, 2, n = 3 },
      } do
        assert.is_true(same(t, (trip(t))))
      end
      local sparse = {}
      for i = 1, 200 do
        sparse[i] = i
      end
      sparse[50], sparse[120] = nil, nil
      assert.is_true(same(sparse, (trip(sparse))))
    end)

    it("keep arrays of any length and mixture", function()
      for _, n in ipairs { 0, 1, 2, 19, 20, 21, 63, 64, 65, 255, 256, 257, 1000, 8191, 8192, 8193,
        20000 } do
        local numbers, strings, mixed, late = {}, {}, {}, {}
        for i = 1, n do
          numbers[i] = i + 0.25
          strings[i] = "s" .. i
          mixed[i] = i % 7 == 0 and "m" or i % 61 == 0 and { i } or i
          late[i] = i < n / 2 and i or "late"
        end
        numbers[0], late.x = "zero", "field"
        assert.is_true(same(numbers, (trip(numbers))))
        assert.is_true(same(strings, (trip(strings))))
        assert.is_true(same(mixed, (trip(mixed))))
        assert.is_true(same(late, (trip(late))))
      end
    end)

    it("keep NaN, infinities and -0 in arrays", function()
      local t = {}
      for i = 1, 100 do
        t[i] = i
      end
      t[50], t[60], t[70], t[80] = 0 / 0, -1 / 0, -0, 1 / 0
      local u = trip(t)
      assert.is_true(u[50] ~= u[50])
      assert.equal(-1 / 0, u[60])
      assert.equal(bits_of(-0), bits_of(u[70]))
      assert.equal(1 / 0, u[80])
      assert.is_true(same(t, u))
    end)

    it("keep arrays that LuaJIT stores as hashes", function()
      local fine, new = pcall(require, "table.new")
      if not fine then
        return pending("no table.new")
      end
      for _, n in ipairs { 1, 2, 10, 30, 100, 1000, 5000 } do
        local t = new(0, 3 * n)
        for i = 1, n do
          t["k" .. i] = i
          t[i] = i
        end
        for i = n, 1, -1 do
          t[-i] = i
        end
        assert.is_true(same(t, (trip(t))))
      end
    end)

    it("keep cycles", function()
      local t = {}
      t[1], t.self, t[t] = t, t, t
      local u = trip(t)
      assert.is_true(u[1] == u and u.self == u and u[u] == u)
      local a, b = { n = "a" }, { n = "b" }
      a.b, b.a = b, a
      local c, d = trip(a, b)
      assert.is_true(c.b == d and d.a == c)
    end)

    it("keep shared references, also between arguments", function()
      local t = { 1 }
      local a, b, c = trip(t, { t, { t } }, t)
      assert.is_true(a == c and b[1] == a and b[2][1] == a)
      local many = {}
      for i = 1, 2000 do
        many[i] = { i }
        many[i + 2000] = many[i]
      end
      local u = trip(many)
      for i = 1, 2000 do
        assert.is_true(u[i] == u[i + 2000] and u[i][1] == i)
      end
    end)

    it("do not share what was equal but not the same", function()
      local u = trip { { 1 }, { 1 } }
      assert.is_true(u[1] ~= u[2])
    end)

    it("may be nested a million deep", function()
      local list = {}
      local ring = list
      local depth = 1e6 / scale
      for i = 1, depth do
        list = { next = list, i = i }
      end
      ring.next = list
      local u = trip(list)
      local n, first = 0, u
      repeat
        u = u.next
        n = n + 1
      until u == first
      assert.equal(depth + 1, n)
    end)

    it("may be nested deeply through arrays and keys", function()
      local list, keys = {}, {}
      for _ = 1, 5000 do
        list = { list }
        keys = { [keys] = true }
      end
      local a, b = trip(list, keys)
      local n = 0
      while a[1] do
        a = a[1]
        n = n + 1
      end
      assert.equal(5000, n)
      while next(b) do
        b = next(b)
        n = n - 1
      end
      assert.equal(0, n)
    end)

    it("have more than 255 and more than 65,535 fields", function()
      for _, n in ipairs { 255, 256, 257, 70000 / scale } do
        local t = { 1, 2, 3 }
        for i = 1, n do
          t["f" .. i] = i
        end
        assert.is_true(same(t, (trip(t))))
      end
    end)

    it("are read raw", function()
      local t = setmetatable({}, Point)
      Point.__newindex, Point.__len, Point.__pairs = error, error, error
      local u = trip(t)
      Point.__newindex, Point.__len, Point.__pairs = nil, nil, nil
      assert.is_nil(rawget(u, "x"))
    end)
  end)

  describe("classes", function()
    it("give fields and metatable back", function()
      local p = trip(new_point(1, { 2 }))
      assert.equal(Point, getmetatable(p))
      assert.equal(1, p.x)
      assert.equal(2, p.y[1])
    end)

    it("keep identity and cycles of objects", function()
      local p = new_point(1)
      p.y = p
      local q, r = trip(p, { p })
      assert.is_true(q.y == q and r[1] == q)
      assert.equal(Point, getmetatable(q))
    end)

    it("may be nested deeply", function()
      local list = new_point(0)
      for i = 1, 10000 do
        list = new_point(i, list)
      end
      local u, n = trip(list), 0
      while u.y do
        assert.equal(Point, getmetatable(u))
        u, n = u.y, n + 1
      end
      assert.equal(10000, n)
    end)

    it("pack and unpack", function()
      local s = trip(new_stack(1, "two", { 3 }))
      assert.equal(Stack, getmetatable(s))
      assert.is_nil(s.cache)
      assert.equal("two", s.items[2])
      assert.equal(3, s.items[3][1])
    end)

    it("keep the identity of packed objects", function()
      local s = new_stack(1)
      local a, b, c = trip(s, { s }, new_stack(s, s))
      assert.is_true(a == b[1] and c.items[1] == a and c.items[2] == a)
    end)

    it("are told apart from what was left for later around them", function()
      local function nest(v, n)
        for _ = 1, n do
          v = { v }
        end
        return v
      end
      local inner = new_stack(nest("in", 120))
      local keys = { [nest({}, 120)] = { [nest(inner, 5)] = "v" } }
      local t = trip(nest(new_stack(nest(keys, 30)), 45))
      for _ = 1, 45 do
        t = t[1]
      end
      t = t.items[1]
      for _ = 1, 30 do
        t = t[1]
      end
      local key = next(select(2, next(t)))
      for _ = 1, 5 do
        key = key[1]
      end
      key = key.items[1]
      for _ = 1, 120 do
        key = key[1]
      end
      assert.equal("in", key)
    end)

    it("unpack values that are whole, however deep", function()
      local deep = {}
      for _ = 1, 1000 do
        deep = { deep }
      end
      local Whole, depth = {}, nil
      class("codec_spec.Whole", Whole, function(o)
        return o[1]
      end, function(v)
        depth = 0
        local at = v
        while at[1] do
          at, depth = at[1], depth + 1
        end
        return setmetatable({ v }, Whole)
      end)
      trip { setmetatable({ deep }, Whole) }
      assert.equal(1000, depth)
      local at = setmetatable({ deep }, Whole)
      for _ = 1, 98 do
        at = { at }
      end
      trip(at)
      assert.equal(1000, depth)
      trip { at }
      trip { { { at } } }
      assert.equal(1000, depth)
    end)

    it("refuse objects packed into objects hundreds deep", function()
      local s = new_stack()
      for _ = 1, 1000 do
        s = new_stack(s)
      end
      assert.matches("^cannot send objects packed into objects so deeply %(arguments%[1%]",
        message_of(encode, s))
    end)

    it("take __treadle_pack from the metatable", function()
      local mt = { __treadle_pack = function(o) return { plain = o.v } end }
      local o = setmetatable({ v = 5, co = coroutine.create(print) }, mt)
      local u, v = trip(o, { o })
      assert.equal(5, u.plain)
      assert.is_nil(getmetatable(u))
      assert.is_true(u == v[1])
      local to_number = setmetatable({}, { __treadle_pack = function() return 7 end })
      assert.same({ 7, 7 }, { trip(to_number, to_number) })
      local to_nil = setmetatable({}, { __treadle_pack = function() end })
      assert.equal(2, count(trip(to_nil, to_nil)))
    end)

    it("take __treadle_pack in lists of any depth", function()
      local mt = { __treadle_pack = function(o) return { next = o.next } end }
      local list = setmetatable({}, mt)
      for _ = 1, 3000 do
        list = setmetatable({ next = list }, mt)
      end
      local u, n = trip(list), 0
      while u.next do
        u, n = u.next, n + 1
      end
      assert.equal(3000, n)
    end)

    it("refuse other metatables with the path", function()
      assert.equal("cannot send a table with a metatable that is no registered class"
        .. " (arguments[1].items[3])", message_of(encode, { items = { 1, 2, setmetatable({},
          {}) } }))
    end)

    it("report what pack raises, with the path", function()
      local Bad = {}
      class("codec_spec.Bad", Bad, function() error("boom", 0) end, function(v) return v end)
      assert.equal("cannot pack an object: boom (arguments[2].k)",
        message_of(encode, 1, { k = setmetatable({}, Bad) }))
      class("codec_spec.Bad", Bad, function() error({}) end, function(v) return v end)
      assert.equal("cannot pack an object: a table was raised (arguments[1])",
        message_of(encode, setmetatable({}, Bad)))
      assert.equal("cannot pack an object: boom (arguments[1])", message_of(encode,
        setmetatable({}, { __treadle_pack = function() error("boom", 0) end })))
    end)

    it("refuse what pack returns, with the path", function()
      local mt = { __treadle_pack = function() return { c = coroutine.create(print) } end }
      assert.equal("cannot send a coroutine (arguments[1][1].c)", message_of(encode,
        { setmetatable({}, mt) }))
    end)

    it("refuse an object that is packed into itself", function()
      local mt = { __treadle_pack = function(o) return { o } end }
      assert.matches("packed into a value with itself in it %(arguments%[1%]%[1%]%)",
        message_of(encode, setmetatable({}, mt)))
      local s = new_stack()
      s.items[1] = s
      assert.matches("with itself in it %(arguments%[1%]%[1%]%)", message_of(encode, s))
    end)

    it("refuse objects that are packed into new objects for ever", function()
      local mt = {}
      function mt.__treadle_pack()
        return setmetatable({}, mt)
      end
      assert.matches("so deeply", message_of(encode, setmetatable({}, mt)))
    end)

    it("cannot yield while packing", function()
      local mt = { __treadle_pack = coroutine.yield }
      local fine, result
      coroutine.wrap(function()
        fine, result = pcall(encode, setmetatable({}, mt))
      end)()
      assert.is_false(fine)
      assert.matches("cannot pack an object: .*yield", result)
    end)

    it("report what unpack raises", function()
      local Odd = {}
      class("codec_spec.Odd", Odd, function() return 1 end, function() error("bang", 0) end)
      local s = encode(setmetatable({}, Odd))
      assert.equal("cannot unpack an object of class 'codec_spec.Odd': bang", message_of(decode, s))
      class("codec_spec.Odd", Odd, function() return 1 end, function() return nil end)
      assert.equal("unpack of class 'codec_spec.Odd' returned nil", message_of(decode, s))
      class("codec_spec.Odd", Odd)
      assert.equal("class 'codec_spec.Odd' has no unpack here", message_of(decode, s))
    end)

    it("let pack and unpack use the codec", function()
      local Own = {}
      class("codec_spec.Own", Own, function(o)
        return encode(o.v, { o.v, {} }, setmetatable({}, Point))
      end, function(s)
        return setmetatable({ v = decode(s) }, Own)
      end)
      local shared = {}
      local function own(v) return setmetatable({ v = v }, Own) end
      local a, b, c = trip({ shared, own { "in" }, shared }, own(own(own(5))), { {}, {} })
      assert.is_true(a[1] == a[3])
      assert.equal("in", a[2].v[1])
      assert.equal(5, b.v.v.v)
      assert.is_true(c[1] ~= c[2])
    end)

    it("end payloads within payloads without end", function()
      local mt = {}
      function mt.__treadle_pack()
        return encode(setmetatable({}, mt))
      end
      assert.matches("too many payloads within payloads", message_of(encode, setmetatable({}, mt)))
      assert.equal(1, trip(1))
    end)

    it("survive a pack that changes the tables around it", function()
      local mt, outer = {}, nil
      function mt.__treadle_pack(o)
        for i = 1, 100 do
          outer["new" .. i] = { i }
          outer[i] = i
        end
        collectgarbage()
        o.v = {}
        return { o.v }
      end
      for n = 1, 30 do
        outer = { a = setmetatable({ v = { {} } }, mt), b = {}, c = { {} } }
        for i = 1, n do
          outer[i] = setmetatable({ v = { {} } }, mt)
        end
        local fine, result = pcall(encode, outer)
        if fine then
          assert.equal("table", type(decode(result)))
        else
          assert.matches("that changes meanwhile", result)
        end
      end
      assert.is_table(outer)
    end)

    it("survive an unpack that changes the tables around it", function()
      local Cut, seen = {}, nil
      class("codec_spec.Cut", Cut, function(o) return { o.outer } end, function(v)
        seen = v[1]
        for k in pairs(seen) do
          seen[k] = nil
        end
        setmetatable(seen, { __newindex = error, __index = error })
        return setmetatable({}, Cut)
      end)
      local outer = {}
      for i = 1, 200 do
        outer[i] = i
      end
      outer[100] = setmetatable({ outer = outer }, Cut)
      local u = trip(outer)
      assert.equal(200, rawget(u, 200))
    end)

    it("name the class that the receiver does not know", function()
      local Lost = {}
      class("codec_spec.Lost", Lost)
      local s = encode(setmetatable({}, Lost)):gsub("codec_spec.Lost", "codec_spec.Gone")
      assert.equal("class 'codec_spec.Gone' is not registered here", message_of(decode, s))
    end)

    it("may be registered again", function()
      local First, Second = {}, {}
      class("codec_spec.Again", First)
      class("codec_spec.Again", First)
      local s = encode(setmetatable({ v = 1 }, First))
      class("codec_spec.Again", Second)
      assert.equal(Second, getmetatable(decode(s)))
      assert.matches("no registered class", message_of(encode, setmetatable({}, First)))
      class("codec_spec.Again", Second, function(o) return o.v end,
        function(v) return setmetatable({ w = v }, Second) end)
      assert.equal(3, trip(setmetatable({ v = 3 }, Second)).w)
    end)

    it("check their arguments", function()
      assert.matches("bad argument #1 to '[%w?]+' %(string expected, got no value%)",
        message_of(treadle.class))
      assert.matches("bad argument #1 to '[%w?]+' %(string expected, got number%)",
        message_of(treadle.class, 1, {}))
      local function wrong(...)
        local args = { n = count(...), ... }
        return message_of(function() treadle.class(unpack(args, 1, args.n)) end)
      end
      assert.equal("bad argument #2 to 'class' (table expected, got nil)", wrong("c", nil))
      assert.equal("bad argument #3 to 'class' (function expected, got number)", wrong("c", {}, 1,
        print))
      assert.equal("bad argument #4 to 'class' (function expected, got boolean)", wrong("c", {},
        print, true))
      assert.equal("bad argument #4 to 'class' (pack and unpack go together)", wrong("c", {},
        print))
      assert.equal("bad argument #3 to 'class' (pack and unpack go together)", wrong("c", {}, nil,
        print))
      assert.equal("bad argument #2 to 'class' (metatable is already class 'codec_spec.Point')",
        wrong("c", Point))
    end)
  end)

  describe("functions", function()
    it("arrive with their upvalues", function()
      local a, b = 3, { 4 }
      local f = trip(function(x) return a + b[1] + x end)
      assert.equal(12, f(5))
    end)

    it("share upvalues that were shared", function()
      local n = 0
      local function add() n = n + 1 end
      local function get() return n end
      local add2, get2 = trip(add, get)
      add2()
      add2()
      assert.equal(2, get2())
      assert.equal(0, n)
      local add3, table_of = trip(add, { { { get } } })
      add3()
      assert.equal(1, table_of[1][1][1]())
    end)

    it("may be recursive and mutually recursive", function()
      local function fact(n) return n < 2 and 1 or n * fact(n - 1) end
      assert.equal(120, trip(fact)(5))
      local even, odd
      function even(n) return n == 0 or odd(n - 1) end
      function odd(n) return n ~= 0 and even(n - 1) end
      local even2, odd2 = trip(even, odd)
      assert.is_true(even2(10))
      assert.is_false(odd2(10))
      assert.is_true(even2 ~= even)
    end)

    it("keep their identity in a payload", function()
      local up = 1
      local function f() return up end
      local function g() end
      local a, b, c, d = trip(f, { f }, g, { g, [g] = 1 })
      assert.is_true(a == b[1] and c == d[1])
      assert.equal(1, d[c])
    end)

    it("are two when they were two", function()
      local list = {}
      for i = 1, 3 do
        list[i] = function() end
      end
      local u = trip(list)
      assert.is_true(u[1] ~= u[2] and u[2] ~= u[3] and u[1] ~= u[3])
      local set = {}
      for i = 1, 3 do
        set[list[i]] = i
      end
      local n = 0
      for _ in pairs(trip(set)) do
        n = n + 1
      end
      assert.equal(3, n)
    end)

    it("without upvalues are the same in two payloads, so that compiled code is kept", function()
      local s = encode(function(x) return x * 2 end)
      local f = decode(s)
      assert.equal(f, decode(s))
      setfenv(f, {})
      assert.is_true(decode(s) ~= f)
      assert.equal(8, decode(s)(4))
    end)

    it("go on when more of them come than are remembered", function()
      for i = 1, 600 do
        assert.equal(i, trip(loadstring("return " .. i))())
      end
    end)

    it("may have 60 upvalues", function()
      local code = {}
      for i = 1, 60 do
        code[#code + 1] = ("local u%d = %d\n"):format(i, i)
      end
      code[#code + 1] = "return function() return 0"
      for i = 1, 60 do
        code[#code + 1] = " + u" .. i
      end
      local f = assert(loadstring(table.concat(code) .. " end"))()
      assert.equal(1830, f())
      assert.equal(1830, trip(f)())
    end)

    it("keep their chunk's name and lines", function()
      local f = assert(loadstring("local function f()\n\nerror('here') end return f",
        "@some/file.lua"))()
      local _, err = pcall((trip(f)))
      assert.equal("some/file.lua:3: here", err)
    end)

    it("use the receiver's globals", function()
      _G.codec_spec_global = 5
      local f = trip(function() return _G.codec_spec_global,
        codec_spec_global end) -- luacheck: ignore
      assert.same({ 5, 5 }, { f() })
      _G.codec_spec_global = nil
    end)

    it("take loaded modules along by name, in upvalues only", function()
      local str, globals = string, _G
      local f = trip(function() return str, globals end)
      local a, b = f()
      assert.is_true(a == string and b == _G)
      package.loaded["codec_spec.tiny"] = { v = 1 }
      local tiny = package.loaded["codec_spec.tiny"]
      local g, copy = trip(function() return tiny end, tiny)
      assert.is_true(g() == tiny and copy ~= tiny)
      local s = encode(function() return tiny end)
      package.loaded["codec_spec.tiny"] = nil
      package.preload["codec_spec.tiny"] = function() return { v = 2 } end
      assert.equal(2, decode(s)().v)
      package.loaded["codec_spec.tiny"], package.preload["codec_spec.tiny"] = nil, nil
      assert.matches("^module 'codec_spec.tiny' cannot be loaded here: module .* not found",
        message_of(decode, s))
    end)

    it("travel by name when they are C functions", function()
      local list = { print, string.format, math.floor, table.concat, io.open, os.time, pcall,
        ffi.new,
        coroutine.wrap, require, jit.on, bit.band, package.loadlib, string.gsub, tostring, next }
      local u = trip(list)
      for i, f in ipairs(list) do
        assert.is_true(u[i] == f)
      end
      local floor = math.floor
      assert.equal(3, trip(function(x) return floor(x) end)(3.5))
    end)

    it("find a C function that was loaded later", function()
      local wrapped = coroutine.wrap(function() end)
      assert.equal("cannot send a C function that no loaded module names (arguments[1].f)",
        message_of(encode, { f = wrapped }))
      package.loaded["codec_spec.late"] = { call = wrapped }
      local s = encode(wrapped)
      assert.equal(wrapped, decode(s))
      package.loaded["codec_spec.late"] = { }
      assert.equal("C function 'codec_spec.late.call' is not known here", message_of(decode, s))
      assert.matches("no loaded module", message_of(encode, wrapped))
      package.loaded["codec_spec.late"] = wrapped
      s = encode(wrapped)
      assert.equal(wrapped, decode(s))
      package.loaded["codec_spec.late"] = nil
      assert.matches("^module 'codec_spec.late' cannot be loaded", message_of(decode, s))
    end)

    it("name the upvalue that cannot travel", function()
      local handle = { file = io.stdout }
      assert.equal("cannot send a userdata (arguments[1].cb upvalue 'handle'.file)",
        message_of(encode, { cb = function() return handle end }))
      local co = coroutine.create(print)
      assert.equal("cannot send a coroutine (arguments[1] upvalue 'co')",
        message_of(encode, function() return co end))
    end)

    it("may hold each other in chains of any length", function()
      local f = function() return 0 end
      for _ = 1, 2000 do
        local inner = f
        f = function() return 1 + inner() end
      end
      assert.equal(2000, trip(f)())
    end)

    it("are called as unpacked classes whole", function()
      local Lazy = {}
      class("codec_spec.Lazy", Lazy, function(o) return o.fn end, function(fn)
        return setmetatable({ result = fn() }, Lazy)
      end)
      local deep = "end"
      for _ = 1, 300 do
        deep = { deep }
      end
      local o = setmetatable({ fn = function()
        local n, at = 0, deep
        while type(at) == "table" do
          at, n = at[1], n + 1
        end
        return n
      end }, Lazy)
      assert.equal(300, trip(o).result)
    end)
  end)

  describe("FFI data", function()
    it("keep 64-bit integers", function()
      local min = ffi.cast("int64_t", 0x8000000000000000ULL)
      local a, b, c, d = trip(-1LL, 0xffffffffffffffffULL, 2LL ^ 62, min)
      assert.is_true(ffi.istype("int64_t", a) and a == -1LL)
      assert.is_true(ffi.istype("uint64_t", b) and b == 0xffffffffffffffffULL)
      assert.is_true(c == 2LL ^ 62 and d == min)
      assert.is_true(same({ -1LL, { 2ULL } }, (trip { -1LL, { 2ULL } })))
    end)

    it("keep complex numbers", function()
      local a, b = trip(ffi.new("complex", 1, -2), ffi.new("complex float", 0.5, 4))
      assert.is_true(ffi.istype("complex", a) and a.re == 1 and a.im == -2)
      assert.is_true(ffi.istype("complex float", b) and b.re == 0.5 and b.im == 4)
    end)

    it("keep scalars of every type", function()
      for _, ct in ipairs { "int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t", "uint32_t",
        "float",
        "double", "bool", "char", "enum codec_color" } do
        local a = ffi.new(ct, 1)
        local b = trip(a)
        assert.is_true(ffi.typeof(a) == ffi.typeof(b))
        assert.is_true(a == b or tonumber(a) == tonumber(b))
      end
      for id = 1, 130 do -- a number that is also its type's number
        local b = trip(ffi.new("int", id))
        assert.equal(id, tonumber(b))
      end
    end)

    it("keep arrays", function()
      for _, a in ipairs {
        ffi.new("double[3]", 1, 2, 3), ffi.new("uint8_t[4]", 1, 2, 3, 4), ffi.new("int[2][3]",
          { { 1, 2, 3 }, { 4, 5, 6 } }),
        ffi.new("double[?]", 3, 1, 2, 3), ffi.new("char[?]", 3,
          "ab"), ffi.new("double[0]"), ffi.new("int[?]", 0),
        ffi.new("struct codec_point[2]", { { 1, 2 }, { 3, 4 } }), ffi.new("struct codec_point[?]",
          2, { { 1, 2 }, { 3, 4 } }),
        ffi.new("codec_anonymous[2]"), ffi.new("float[?][2]", 3), ffi.new("const int[2]", 1, 2),
      } do
        local b = trip(a)
        assert.is_true(ffi.typeof(a) == ffi.typeof(b))
        assert.equal(ffi.sizeof(a), ffi.sizeof(b))
        assert.equal(ffi.string(a, ffi.sizeof(a)), ffi.string(b, ffi.sizeof(b)))
      end
    end)

    it("keep structs and unions, also those with a name by typedef only", function()
      local p = trip(ffi.new("struct codec_point", 1, 2))
      assert.is_true(ffi.istype("struct codec_point", p) and p.x == 1 and p.y == 2)
      local n = ffi.new("struct codec_nested")
      n.q, n.z, n.row[2], n.b, n.c = 1, 2, 3, 5, 255
      local m = trip(n)
      assert.is_true(m.q == 1 and m.z == 2 and m.row[2] == 3 and m.b == 5 and m.c == 255)
      local e = trip(ffi.new("union codec_either", { u = 0xffffffffffffffffULL }))
      assert.is_true(e.u == 0xffffffffffffffffULL)
      local t = trip(ffi.new("codec_anonymous", 7, { 1.5, 2.5 }))
      assert.is_true(ffi.istype("codec_anonymous", t) and t.a == 7 and t.f[1] == 2.5)
    end)

    it("keep identity of arrays and structs", function()
      local a = ffi.new("int[2]")
      local b, c = trip(a, { a, ffi.new("int[2]") })
      c[1][0] = 5
      assert.equal(5, b[0])
      assert.equal(0, c[2][0])
    end)

    it("refuse pointers, functions, types and what has pointers, with type and path", function()
      local function refused(type_name, value)
        assert.equal(("cannot send cdata of type '%s' (arguments[1][1])"):format(type_name),
          message_of(encode, { value }))
      end
      refused("char *", ffi.new("char *"))
      refused("int *[2]", ffi.new("int *[2]"))
      refused("struct codec_node", ffi.new("struct codec_node"))
      refused("struct codec_node [2]", ffi.new("struct codec_node[2]"))
      refused("struct codec_vls", ffi.new("struct codec_vls", 3))
      refused("struct codec_point &", ffi.new("struct codec_point[1]")[0])
      refused("int", ffi.typeof("int"))
      refused("struct codec_point", ffi.typeof("struct codec_point"))
      refused("int64_t", ffi.typeof("int64_t"))
      ffi.cdef "int getpid(void);"
      refused("int ()", ffi.C.getpid)
      local anonymous = ffi.new("struct { int a; }")
      assert.matches("^cannot send cdata of type 'struct %d+' %(arguments%[1%]%)",
        message_of(encode, anonymous))
    end)

    it("name a type that the receiver does not know", function()
      local s = encode(ffi.new("struct codec_point"))
      assert.equal("C type 'struct codec_paint' is not known here",
        message_of(decode, (s:gsub("codec_point", "codec_paint"))))
      assert.equal("C type 'struct codec_vls' is not known here",
        message_of(decode, "\1\1\15\4\16struct codec_vls\8\0\0\0" .. ("\0"):rep(8)))
    end)

    it("check the receiver's size", function()
      assert.equal("C type 'int' has another size here", message_of(decode,
        "\1\1\15\4\3int\8\0\0\0" .. ("\0"):rep(8)))
      assert.equal("C type 'double [?]' has another size here",
        message_of(decode, "\1\1\15\4\10double [?]\9\0\0\0" .. ("\0"):rep(9)))
    end)

    it("never let NaNs forge values", function()
      local evil = ("\255"):rep(8)
      local function element(name, bytes, read)
        return read(decode("\1\1\15\4" .. string.char(#name) .. name .. string.char(#bytes)
          .. "\0\0\0" .. bytes))
      end
      for _, x in ipairs {
        element("double [1]", evil, function(a) return a[0] end),
        element("double [?]", evil, function(a) return a[0] end),
        element("float [1]", ("\255"):rep(4), function(a) return a[0] end),
        element("struct codec_point", evil .. evil, function(a) return a.y end),
        element("struct codec_point [?]", evil:rep(4), function(a) return a[1].y end),
        element("codec_anonymous", evil .. ("\255"):rep(4), function(a) return a.f[1] end),
        element("struct codec_nested", ("\255"):rep(ffi.sizeof("struct codec_nested")),
          function(a) return a.z end),
        element("complex", evil .. evil, function(a) return a.im end),
        decode("\1\1\3" .. evil),
        decode("\1\1\6\25\0\8\25\0\0\0" .. evil:rep(25))[25],
      } do
        assert.equal("number", type(x))
        assert.is_true(x ~= x)
      end
    end)
  end)

  describe("refusals", function()
    it("name coroutines, userdata and the path to them", function()
      local co = coroutine.create(print)
      local function refused(path, ...)
        assert.equal("cannot send a coroutine (" .. path .. ")", message_of(encode, ...))
      end
      refused("arguments[1]", co)
      refused("arguments[3]", 1, nil, co)
      refused("arguments[1].items[3]", { items = { 1, 2, co } })
      refused("arguments[1][\"a b\"]", { ["a b"] = co })
      refused("arguments[1][\"1st\"]", { ["1st"] = co })
      refused("arguments[1][\"\"]", { [""] = co })
      refused("arguments[1][\"q\\\"\\\\\\010\\000\"]", { ["q\"\\\n\0"] = co })
      refused("arguments[1][-1.5]", { [-1.5] = co })
      refused("arguments[1][true].x", { [true] = { x = co } })
      refused("arguments[1][false]", { [false] = co })
      refused("arguments[1][table key].x", { [{}] = { x = co } })
      refused("arguments[1][thread key]", { [co] = 1 })
      refused("arguments[1][table key].x", { [{ x = co }] = 1 })
      refused("arguments[1][" .. "\"" .. ("k"):rep(60) .. "...\"]", { [("k"):rep(100)] = co })
      assert.equal("cannot send a userdata (arguments[2])", message_of(encode, 1, io.stdout))
      assert.equal("cannot send a userdata (arguments[1])", message_of(encode, newproxy(true)))
    end)

    it("elide the middle of very long paths", function()
      local t = coroutine.create(print)
      for _ = 1, 350 do
        t = { next = t }
      end
      local message = message_of(encode, 1, t)
      assert.matches("^cannot send a coroutine %(arguments%[2%]%.%.%.next%.next", message)
    end)

    it("leave the codec usable", function()
      for _ = 1, 100 do
        pcall(encode, { {}, {}, coroutine.create(print) })
        pcall(decode, "\17\1\6\1\0")
      end
      assert.is_true(same({ { 1 }, { 2 } }, (trip { { 1 }, { 2 } })))
    end)

    it("point at the caller", function()
      local here = debug.getinfo(1, "Sl")
      local at = here.short_src .. ":" .. (here.currentline + 3)
      assert.equal(at, position_of(function()
        encode(io.stdout)
      end))
      at = here.short_src .. ":" .. (here.currentline + 7)
      assert.equal(at, position_of(function()
        decode("")
      end))
    end)
  end)

  describe("limits", function()
    it("stop an encoder exactly there", function()
      if not has_module then
        return pending("needs codec_module")
      end
      for name, values in pairs(corpus()) do
        local size = #encode(unpack(values, 1, values.n))
        for _, limit in ipairs { 0, 1, 2, 3, 10, math.floor(size / 2), size - 1 } do
          if limit < size then
            local s, message = module.encode_limited(limit, unpack(values, 1, values.n))
            assert.is_nil(s, name)
            assert.equal(("payload is larger than max_payload (%d bytes)"):format(limit), message)
          end
        end
        for limit = size, size + 3 do
          assert.is_string((module.encode_limited(limit, unpack(values, 1, values.n))))
        end
      end
    end)
  end)

  describe("decoding", function()
    it("checks its argument", function()
      assert.matches("bad argument #1 to '[%w?]+' %(string expected, got no value%)",
        message_of(decode))
      assert.matches("string expected, got number", message_of(decode, 1))
    end)

    it("refuses other versions, unknown tags and bytes after the end", function()
      assert.equal("malformed payload: not of version 1", message_of(decode, ""))
      assert.equal("malformed payload: not of version 1", message_of(decode, "\2\0"))
      assert.equal("malformed payload: not of version 1", message_of(decode, "\129\0"))
      assert.equal("malformed payload: an unknown tag (byte 2)", message_of(decode, "\1\1\99"))
      assert.equal("malformed payload: bytes after its end (byte 2)", message_of(decode, "\1\0\0"))
      assert.equal("malformed payload: truncated (byte 3)", message_of(decode, "\1\1\3\0"))
    end)

    it("refuses keys that are nil or NaN", function()
      assert.equal("malformed payload: a key that is nil (byte 6)", message_of(decode,
        "\1\1\6\0\1\0\2"))
      local nan = encode(0 / 0):sub(3)
      assert.matches("malformed payload: a key that is NaN", message_of(decode, "\1\1\6\0\1"
        .. nan .. "\2"))
    end)

    it("refuses references to what is not there", function()
      assert.matches("a reference to no object", message_of(decode, "\1\1\9\0\0\0\0"))
      assert.matches("a reference to no object", message_of(decode, "\17\1\9\0\0\0\0"))
      assert.matches("a reference to no object", message_of(decode, "\17\1\6\1\0\9\1\0\0\0"))
      assert.matches("a body that does not follow", message_of(decode, "\1\1\10"))
      assert.matches("truncated", message_of(decode, "\33\1\10"))
      assert.matches("a body that is no table", message_of(decode, "\33\1\10\1"))
    end)

    it("does not allocate for counts that the bytes cannot hold", function()
      local before = collectgarbage("count")
      for _, s in ipairs {
        "\1\1\7\255\255\255\7\0\0\0\0", "\1\1\7\0\0\0\0\255\255\255\3", "\1\1\5\255\255\255\127x",
        "\1\255\255\255\255\127\0", "\1\1\7\16\0\0\0\0\0\0\0\8\255\255\255\255",
        "\1\1\15\4\10double [?]\255\255\255\127", "\1\1\7\255\255\255\255\255\255\255\255",
      } do
        assert.matches("malformed payload", message_of(decode, s))
      end
      assert.is_true(collectgarbage("count") - before < 1000)
    end)

    it("does not let tables in tables claim the same bytes", function()
      local inner = 60000
      local s = {}
      for i = 1, 90 do
        local n = inner - i
        s[i] = "\7" .. string.char(n % 256, math.floor(n / 256), 0, 0, 0, 0, 0, 0)
      end
      collectgarbage()
      local before = collectgarbage("count")
      assert.matches("malformed", message_of(decode, "\1\1" .. table.concat(s)
        .. ("\0"):rep(inner)))
      assert.is_true(collectgarbage("count") - before < 4000)
    end)

    it("refuses nesting that no encoder writes", function()
      assert.matches("nested too deeply", message_of(decode, "\1\1" .. ("\6\1\0"):rep(100000)
        .. "\0"))
    end)

    it("refuses bytecode that is none", function()
      assert.matches("a function without bytecode", message_of(decode, "\65\1\16\5\0\0\0print\0"))
      assert.matches("a function without bytecode", message_of(decode,
        "\65\1\16\5\0\0\0\27LJ\2\0\0"))
      assert.matches("a function that was not announced", message_of(decode,
        "\1\1\18\4\2_G\4\5print"))
    end)

    it("refuses functions where code is not accepted", function()
      if not has_module then
        return pending("needs codec_module")
      end
      for _, v in ipairs { function() end, print } do
        local fine, message = module.decode_data(encode { v })
        assert.is_false(fine)
        assert.equal("payload holds a function, and functions are not accepted here", message)
      end
      assert.is_true((module.decode_data(encode { 1, { "x" } })))
    end)

    it("gives an error for input cut short anywhere", function()
      for name, values in pairs(corpus()) do
        local s = encode(unpack(values, 1, values.n))
        for i = 0, #s - 1, math.ceil(scale / 10) do
          assert.is_false(pcall(decode, s:sub(1, i)), name)
        end
        assert.equal(values.n, count(decode(s)))
      end
    end)

    it("gives a result or an error for any byte changed", function()
      for name, values in pairs(corpus()) do
        -- Changed bytecode is code: what it does is not the decoder's.
        if name ~= "functions" then
          local s = encode(unpack(values, 1, values.n))
          for i = 1, #s, math.ceil(scale / 10) do
            local byte = s:byte(i)
            for _, flip in ipairs { 1, 2, 16, 128, 255 } do
              local changed = (byte + flip) % 256
              local fine, err = pcall(decode, s:sub(1, i - 1) .. string.char(changed)
                .. s:sub(i + 1))
              assert.is_true(fine or type(err) == "string")
            end
          end
        end
      end
    end)
  end)

  it("gives every payload of the corpus back", function()
    for name, values in pairs(corpus()) do
      if name ~= "functions" and name ~= "packed" and name ~= "table_key" then
        local result = { trip(unpack(values, 1, values.n)) }
        for i = 1, values.n do
          assert.is_true(same(values[i], result[i]), name)
        end
      end
    end
  end)
end

describe("codec", function()
  suite(1)
end)

describe("codec without the JIT compiler", function()
  setup(function() jit.off() end)
  teardown(function() jit.on() end)
  suite(1)
end)

describe("codec under a collector that never rests", function()
  local pause, stepmul
  setup(function()
    pause = collectgarbage("setpause", 0)
    stepmul = collectgarbage("setstepmul", 4000)
  end)
  teardown(function()
    collectgarbage("setpause", pause)
    collectgarbage("setstepmul", stepmul)
  end)
  suite(100)
end)
