local treadle = require "treadle"
local codec = require "spec.support.codec"

local class, count, message_of = codec.class, codec.count, codec.message_of
local Point, new_point = codec.Point, codec.new_point
local Stack, new_stack = codec.Stack, codec.new_stack

local function suite(encode, decode, scale)
  local function trip(...)
    return decode(encode(...))
  end

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
    local depth = math.min(10000, 1e6 / scale)
    local list = new_point(0)
    for i = 1, depth do
      list = new_point(i, list)
    end
    local u, n = trip(list), 0
    while u.y do
      assert.equal(Point, getmetatable(u))
      u, n = u.y, n + 1
    end
    assert.equal(depth, n)
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

  it("name the class that a metatable says it is", function()
    assert.equal("cannot send a table with a metatable that is no registered class, 'Account'"
      .. " (arguments[1].a)", message_of(encode, { a = setmetatable({}, { __name = "Account" }) }))
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
    assert.matches("bad argument #1 to 'class' %(string expected, got nil%)",
      message_of(treadle.class))
    assert.matches("bad argument #1 to 'class' %(string expected, got number%)",
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
end

for _, way in ipairs(codec.ways) do
  describe("codec: classes" .. way.name, function()
    setup(way.enter)
    teardown(way.leave)
    suite(way.encode, way.decode, way.scale)
  end)
end
