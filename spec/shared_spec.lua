local ffi = require "ffi"
local treadle = require "treadle"

--- Whether a shared table has what the plain one has, and the same where that has it twice.
local function is_like(source, t, seen)
  if type(source) ~= "table" then return rawequal(source, t) end
  if type(t) ~= "userdata" or seen[source] then return seen[source] == t end
  seen[source] = t
  local count = 0
  for k, v in treadle.pairs(t) do
    count = count + 1
    if source[k] == nil or not is_like(source[k], v, seen) then return false end
  end
  for k in next, source do
    count = count - 1
    if t[k] == nil then return false end
  end
  return count == 0 and #source == #t
end

--- Tables of any shape, by a seed.
local function random_table(random, depth, known)
  local t = {}
  known[#known + 1] = t
  local function value()
    local kind = random(8)
    if kind == 1 then return random() < 0.5 end
    if kind == 2 then return random(1000) end
    if kind == 3 then return random() * 1e9 end
    if kind == 4 then return ("x"):rep(random(0, 20)) .. random(50) end
    if kind == 5 then return known[random(#known)] end
    if depth > 0 then return random_table(random, depth - 1, known) end
    return ""
  end
  for i = 1, random(0, 12) do t[i] = value() end
  for _ = 1, random(0, 12) do
    local kind = random(4)
    local key = kind == 1 and random() * 100 or kind == 2 and -random(100)
      or kind == 3 and (random() < 0.5) or "key" .. random(100)
    t[key] = value()
  end
  return t
end

describe("a shared table", function()
  local pool

  before_each(function() pool = treadle.pool("shared_tasks", { threads = 2 }) end)
  after_each(function() pool:close() end)

  it("has what the table had, and leaves that alone", function()
    local source = { 1, "two", true, { 4.5 }, name = "x", [2.5] = "half", [false] = 0, [true] = 1,
      [-1] = "", nested = { deep = { er = { 42 } } }, [""] = "empty", nan = 0 / 0, inf = math.huge }
    local t = treadle.shared(source)
    assert.equal("userdata", type(t))
    assert.equal(1, t[1])
    assert.equal("two", t[2])
    assert.is_true(t[3])
    assert.equal(4.5, t[4][1])
    assert.equal("x", t.name)
    assert.equal("half", t[2.5])
    assert.equal(0, t[false])
    assert.equal(1, t[true])
    assert.equal("", t[-1])
    assert.equal("empty", t[""])
    assert.equal(42, t.nested.deep.er[1])
    assert.is_true(t.nan ~= t.nan)
    assert.equal(math.huge, t.inf)
    assert.is_nil(t[5])
    assert.is_nil(t.missing)
    assert.is_nil(t[print])
    assert.equal(4, #t)
    assert.equal(0, #t.nested)
    assert.equal(1, #t.nested.deep.er)
    assert.is_nil(getmetatable(source))
    assert.equal(4.5, source[4][1])
  end)

  it("reads the same in workers", function()
    local t = treadle.shared { 1, 2, { x = "y" }, name = "n" }
    assert.equal("y", pool.call.at(t, 3, "x"):await())
    local list, length = pool.call.elements(t):await()
    assert.same({ 1, 2, t[3] }, list)
    assert.equal(3, length)
    local contents = pool.call.contents(t):await()
    assert.equal("n", contents.name)
    assert.is_true(rawequal(t[3], contents[3]))
  end)

  it("is a copy: what happens to the source later is not in it", function()
    local source = { list = { 1 } }
    local t = treadle.shared(source)
    source.list[1], source.new = 2, true
    assert.equal(1, t.list[1])
    assert.is_nil(t.new)
  end)

  it("keeps cycles and what occurs twice", function()
    local source = { inner = {} }
    source.self, source.inner.up, source.again = source, source, source.inner
    local t = treadle.shared(source)
    assert.is_true(rawequal(t, t.self))
    assert.is_true(rawequal(t.inner, t.again))
    assert.is_true(rawequal(t, t.inner.up.self.again.up))
    assert.is_true(pool.call.same(t, "inner", "up", "self"):await())
  end)

  it("travels as itself, and so do the tables in it", function()
    local t = treadle.shared { inner = { { "deep" } } }
    assert.is_true(rawequal(t, pool.call.echo(t):await()))
    assert.is_true(rawequal(t.inner, pool.call.echo(t.inner):await()))
    assert.is_true(rawequal(t.inner[1], pool.call.at(t, "inner", 1):await()))
    local list = pool.call.echo({ t, t.inner, t, x = t.inner }):await()
    assert.is_true(rawequal(list[1], t) and rawequal(list[3], t))
    assert.is_true(rawequal(list[2], t.inner) and rawequal(list.x, t.inner))
    assert.is_true(rawequal(t, treadle.shared(t)))
  end)

  it("lives as long as somebody has a part of it", function()
    local inner = treadle.shared({ { { "deep" } } })[1]
    collectgarbage()
    collectgarbage()
    pool:broadcast("hold", inner):await()
    inner = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal("deep", pool.call.held(1, 1):await())
  end)

  it("cannot be written", function()
    local t = treadle.shared { 1, x = {} }
    for _, look in ipairs { false, true } do
      if look then assert.equal(1, t[1]) end
      for _, key in ipairs { 1, 2, "x", "y" } do
        local ok, err = pcall(function() t[key] = 2 end)
        assert.is_false(ok)
        assert.matches("shared_spec.lua:%d+: shared tables are immutable", err)
      end
    end
    assert.error_matches(function() t.x.y = 1 end, "shared tables are immutable")
    assert.error(function() rawset(t, 1, 2) end)
    assert.equal("treadle.shared", getmetatable(t))
    local ok, err = pool.call.write(t, "x", 1):pawait()
    assert.is_false(ok)
    assert.matches("shared tables are immutable", err.message)
  end)

  it("is iterated as a plain one", function()
    local source = { 10, 20, 30, x = 1, y = 2 }
    local t = treadle.shared(source)
    local seen, list = {}, {}
    for k, v in pairs(t) do seen[k] = v end
    for i, v in ipairs(t) do list[i] = v end
    assert.same(source, seen)
    assert.same({ 10, 20, 30 }, list)
    seen = {}
    for k, v in treadle.pairs(t) do seen[k] = v end
    assert.same(source, seen)
    for _ in pairs(treadle.shared {}) do error("empty") end
    for k, v in treadle.pairs { a = 1 } do assert.same({ "a", 1 }, { k, v }) end
    for k, v in treadle.ipairs { "a" } do assert.same({ 1, "a" }, { k, v }) end
  end)

  it("is iterated in a file that has kept Lua's own pairs, by treadle.pairs", function()
    pool:resize(1)
    local t = treadle.shared { 1, 2, 3 }
    local ok, err = pool.call.kept(t):await()
    assert.is_false(ok)
    assert.matches("table expected, got userdata", err)
    assert.equal(3, pool.call.treadles(t):await())
  end)

  it("changes nothing for what else pairs is called with", function()
    treadle.shared {}
    assert.error_matches(function() return pairs(nil) end,
      "bad argument #1 to 'pairs' %(table expected, got nil%)")
    assert.error_matches(function() return ipairs(io.stdout) end,
      "bad argument #1 to 'ipairs' %(table expected, got userdata%)")
    local keep = pairs
    local function count(t)
      local n = 0
      for _ in keep(t) do n = n + 1 end
      for _ in pairs(t) do n = n + 1 end
      return n
    end
    assert.equal(4, pool:run(count, { { 1, 2 } }):await())
    assert.equal(4, pool:run(count, { treadle.shared { 1, x = 2 } }):await())
  end)

  it("may hold what a payload may: shared objects, FFI data, functions", function()
    ffi.cdef "struct shared_spec_point { int x, y; };"
    local event, other = treadle.event(), treadle.shared { "other" }
    local up = 20
    local t = treadle.shared {
      event = event, other = other, id = 0xffffffffffffffffULL,
      f = function(x) return x + up end, format = string.format,
      point = ffi.new("struct shared_spec_point", 3, 4),
    }
    assert.is_true(rawequal(event, t.event))
    assert.is_true(rawequal(other, t.other))
    assert.equal(0xffffffffffffffffULL, t.id)
    assert.equal(22, t.f(2))
    assert.equal(t.f, t.f)
    assert.equal(string.format, t.format)
    assert.equal(4, t.point.y)
    t = treadle.shared { event = event, list = { other } }
    assert.is_true(rawequal(event, pool.call.at(t, "event"):await()))
    assert.equal("other", pool.call.at(t, "list", 1, 1):await())
  end)

  it("refuses what it cannot hold, and says where that is", function()
    local co = coroutine.create(print)
    local function f() return co end
    local event = treadle.event()
    event:close()
    for _, case in ipairs {
      { { items = { 1, 2, co } }, "cannot send a coroutine (table.items[3])" },
      { { ["a b"] = { [7] = io.stdout } }, 'cannot send a file (table["a b"][7])' },
      { { f = f }, "cannot send a coroutine (table.f upvalue 'co')" },
      { { x = { setmetatable({}, {}) } }, "cannot share a table with a metatable (table.x[1])" },
      { { { [{}] = 1 } }, "cannot share a table with a table as a key (table[1])" },
      { { [1LL] = 1 }, "cannot share a table with a cdata as a key (table)" },
      { { p = ffi.new("char *") }, "cannot send cdata of type 'char *' (table.p)" },
      { { e = event }, "cannot send a closed handle (table.e)" },
      { setmetatable({}, {}), "cannot share a table with a metatable (table)" },
    } do
      local ok, err = pcall(treadle.shared, case[1])
      assert.is_false(ok)
      assert.equal(case[2], err:gsub("^[^ ]-:%d+: ", ""), nil)
    end
    local deep = {}
    local t = deep
    for _ = 1, 100 do
      t.x = {}
      t = t.x
    end
    t.x = co
    assert.error_matches(function() treadle.shared(deep) end,
      "cannot send a coroutine %(table%.%.%..-%.x%.x%)$")
    assert.same({ false, "bad argument #1 to 'shared' (table expected, got nil)" },
      { pcall(treadle.shared) })
    for _, wrong in ipairs { 1, "x", false, io.stdout } do
      assert.error_matches(function() treadle.shared(wrong) end,
        "bad argument #1 to 'shared' %(table expected, got " .. type(wrong) .. "%)")
    end
  end)

  it("is refused by what keeps strings", function()
    assert.error_matches(function() treadle.encode(treadle.shared {}) end,
      "cannot keep in a string shared")
  end)

  it("is as deep and as large as memory lets it", function()
    local deep = {}
    for i = 1, 100000 do deep = { deep, i } end
    local t = treadle.shared(deep)
    for i = 100000, 1, -1 do
      if t[2] ~= i then error("at " .. i) end
      t = t[1]
    end
    assert.equal(0, #t)
    t = nil -- luacheck: ignore
    local chain = treadle.shared {}
    for _ = 1, 100000 do chain = treadle.shared { chain } end
    collectgarbage()
    collectgarbage()
    assert.equal(1, #chain)
  end)

  it("reads of a large one only what is looked up, at first", function()
    local source = {}
    for i = 1, 100000 do source[i] = ("%09d"):format(i) end
    local kib, first = pool.call.heap(treadle.shared(source)):await()
    assert.equal("000000001", first)
    assert.is_true(kib < 100, kib)
  end)

  it("reads all of a large one, in any order and twice", function()
    local source = { x = { 1 } }
    for i = 1, 3000 do
      source[i] = i
      source["key" .. i] = -i
      source[-i] = { i }
      source[i + 0.5] = tostring(i)
    end
    local f = function() return "f" end
    source.f = f
    local t = treadle.shared(source)
    local kept, kept_f = t[-5], t.f
    for _ = 1, 2 do
      for i = 3000, 1, -1 do
        assert(t[i] == i and t["key" .. i] == -i and t[-i][1] == i and t[i + 0.5] == tostring(i))
        assert(t[i + 3000] == nil and t["no" .. i] == nil)
      end
    end
    assert.is_true(rawequal(kept, t[-5]))
    assert.equal(kept_f, t.f)
    assert.equal(t[-0], nil)
    assert.equal(3000, #t)
    assert.is_true(is_like(source[-7], t[-7], {}))
    local other = treadle.shared(source)
    assert.equal(other[-5], other[-5])
    kept_f = other.f
    local count = 0
    for k, v in pairs(other) do
      count = count + 1
      assert(type(v) == "userdata" or k == "f" or source[k] == v)
    end
    assert.equal(12002, count)
    assert.equal(kept_f, other.f)
  end)

  it("equals its source, whatever that is", function()
    local seed = tonumber(os.getenv("TDL_SEED")) or os.time()
    print("# TDL_SEED=" .. seed)
    math.randomseed(seed)
    for _ = 1, 200 do
      local source = random_table(math.random, 3, {})
      local t = treadle.shared(source)
      assert.is_true(is_like(source, t, {}))
    end
  end)

  it("may be in data, in results that nobody takes, and in upvalues", function()
    local t = treadle.shared { 7, inner = { 8 } }
    local inner = t.inner
    assert.equal(15, pool:run(function() return t[1] + inner[1] end):await())
    for _ = 1, 100 do pool.call.echo(t, inner) end
    local second = treadle.pool("shared_tasks", { threads = 1, data = { t = inner } })
    assert.equal(8, second:run(function()
      return require("treadle").worker.data.t[1]
    end):await())
    second:terminate()
  end)

  it("may be read by a task that is stopped #computing", function()
    local t = treadle.shared { 1, 2, 3 }
    local f = pool.call.spin(t)
    assert.is_false(f:wait(0.05))
    f:cancel { force = true }
    assert.equal("cancelled", select(2, f:pawait()).kind)
    assert.equal(2, pool.call.at(t, 2):await())
    f = pool.call.spin(t)
    assert.is_false(f:wait(0.05))
    pool:terminate()
    assert.equal("closed", select(2, f:pawait()).kind)
    assert.equal(3, t[3])
  end)

  it("says what it is", function()
    local t = treadle.shared { {} }
    assert.matches("^treadle.shared: 0x%x+$", tostring(t))
    assert.equal(tostring(t[1]), tostring(t[1]))
    assert.not_equal(tostring(t), tostring(t[1]))
  end)
end)
