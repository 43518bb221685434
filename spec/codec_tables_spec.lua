local codec = require "spec.support.codec"
local ffi = require "ffi"

local count, same, bits_of = codec.count, codec.same, codec.bits_of
local Point = codec.Point

local function suite(encode, decode, scale)
  local function trip(...)
    return decode(encode(...))
  end

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

    for n = 1, 40 do
      it("keep holes of every size in arrays of length " .. n, function()
        for hole = 1, n do
          for _, width in ipairs { 1, 2, n } do
            local t, strings = {}, {}
            for i = 1, n do
              t[i], strings[i] = i, "s" .. i
            end
            for i = hole, math.min(n, hole + width - 1) do
              t[i], strings[i] = nil, nil
            end
            t[0] = hole % 2 == 0 and "zero" or nil
            assert.is_true(same(t, (trip(t))))
            assert.is_true(same(strings, (trip(strings))))
          end
        end
      end)
    end

    it("are no larger than what is in them", function()
      local fine, new = pcall(require, "table.new")
      if not fine then
        return pending("no table.new")
      end
      local t = new(1e5, 1e5)
      t[1], t[99999], t.x = 1, 2, 3
      assert.is_true(same(t, (trip(t))))
      assert.is_true(#encode(t) < 100)
    end)

    it("keep what is left of tables after fields were removed", function()
      local t = {}
      for i = 1, 300 do
        t[i], t["k" .. i], t[{ i }] = i, { i }, true
      end
      for i = 1, 300, 2 do
        t[i], t["k" .. i] = nil, nil
      end
      assert.is_true(same(t, (trip(t))))
      for k in pairs(t) do
        t[k] = nil
      end
      assert.is_nil(next(trip(t)))
    end)

    it("survive a finaliser that changes them on their way", function()
      for n = 1, 100 do
        local t, more = {}, {}
        local proxy = newproxy(true)
        getmetatable(proxy).__gc = function()
          for i = 1, n do
            t[{ n }], t[-i] = i, more
            more[n + i] = { i }
          end
          t[2], t[3] = nil, nil
        end
        -- A function is encoded by allocating: the collector runs then.
        for i = 1, n % 7 + 2 do
          t[i], t["k" .. i], t[-i] = function() return i end, more, { function() return n end }
        end
        proxy = nil -- luacheck: ignore
        local fine, result = pcall(encode, t, t)
        if fine then
          assert.is_table(decode(result))
        else
          assert.is_string(result)
        end
      end
    end)

    for _, n in ipairs { 0, 1, 2, 19, 20, 21, 63, 64, 65, 255, 256, 257, 1000, 8191, 8192, 8193,
      20000 / scale } do -- each takes its time under that collector
      it(("keep arrays of length %g and any mixture"):format(n), function()
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
      end)
    end

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
end

for _, way in ipairs(codec.ways) do
  describe("codec: scalars and tables" .. way.name, function()
    setup(way.enter)
    teardown(way.leave)
    suite(way.encode, way.decode, way.scale)
  end)
end

-- Both ways of going through tables, held against each other.
local module = codec.module
describe("codec: tables read in place", function()
  if not module then
    it("and by the Lua API alone", function() pending("needs codec_module") end)
    return
  end

  after_each(function() module.use_raw(true) end)

  it("is on wherever LuaJIT has references of 64 bits", function()
    assert.equal(ffi.abi("gc64"), module.use_raw(true))
    assert.is_false(module.use_raw(false))
  end)

  local function scalar(random)
    local kind = random(6)
    if kind == 1 then
      return random(2) == 1
    elseif kind == 2 then
      return random(-100, 100)
    elseif kind == 3 then
      return random(-100, 100) / 7
    elseif kind == 4 then
      return ("s"):rep(random(300))
    end
    return "s" .. random(20)
  end

  local function tree(random, depth, known)
    local t = {}
    known[#known + 1] = t
    local function value()
      if random(4) > 1 then
        return scalar(random)
      elseif depth == 0 or random(5) == 1 then
        return known[random(#known)]
      end
      return tree(random, depth - 1, known)
    end
    local shape = random(5)
    for i = 1, shape < 4 and random(30) or 0 do
      t[i] = shape == 1 and i or shape == 2 and random(4) > 1 and i or value()
    end
    for _ = 1, shape > 2 and random(12) or 0 do
      t[random(9) > 1 and scalar(random) or tree(random, 0, known)] = value()
    end
    if random(3) == 1 then
      t[random(#t + 1)] = nil
    end
    return t
  end

  -- By value, with the tables among the keys counted only.
  it("is the same for random tables, whoever writes and whoever reads", function()
    for seed = 1, 400 do
      math.randomseed(seed)
      local t = tree(math.random, 4, {})
      for _, writes in ipairs { true, false } do
        module.use_raw(writes)
        local s = module.encode(t, t)
        for _, reads in ipairs { true, false } do
          module.use_raw(reads)
          local a, b = module.decode(s)
          assert.is_true(a == b and same(t, a), "seed " .. seed)
        end
      end
    end
  end)
end)
