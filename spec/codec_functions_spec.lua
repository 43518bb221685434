local codec = require "spec.support.codec"
local ffi = require "ffi"

local class, message_of = codec.class, codec.message_of

local function suite(encode, decode)
  local function trip(...)
    return decode(encode(...))
  end

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
    assert.equal("cannot send a file (arguments[1].cb upvalue 'handle'.file)",
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

  -- The child of a function is the same object exactly when the function's prototype is.
  local function child_of(f)
    return tostring(require("jit.util").funck(f, -1))
  end

  it("with upvalues are new functions of one prototype in all payloads", function()
    local function make(x)
      return function(n)
        x = x + n
        return x, function() return x end
      end
    end
    for _ = 1, 8 do
      make(0) -- some versions of LuaJIT dump otherwise what has been made often
    end
    local first, other = trip(make(10), make(100))
    local later = trip(make(1000))
    assert.is_true(first ~= other and first ~= later)
    assert.equal(child_of(first), child_of(other))
    assert.equal(child_of(first), child_of(later))
    assert.equal(11, (first(1)))
    assert.equal(102, (other(2)))
    assert.equal(1003, (later(3)))
    local value, get = first(1)
    later(1)
    assert.equal(12, value)
    assert.equal(12, get())
    assert.equal("x", (debug.getupvalue(later, 1)))
    assert.equal(debug.getinfo(first, "S").linedefined, debug.getinfo(later, "S").linedefined)
  end)

  it("keep their own constants when they are compiled", function()
    local function make(k, list)
      return function(n)
        local sum = 0
        for _ = 1, n do
          sum = sum + k + list[1]
        end
        return sum
      end
    end
    for k = 1, 30 do
      local f = trip(make(k, { k }))
      for _ = 1, 5 do
        assert.equal(200 * k, f(100))
      end
    end
  end)

  it("have upvalues of upvalues, and up to sixty of them", function()
    local deep = 1
    local function outer()
      return function()
        deep = deep + 1
        return deep
      end
    end
    local f, g = trip(outer(), outer())
    assert.equal(2, f())
    assert.equal(3, g())
    local names = {}
    for i = 1, 60 do
      names[i] = "u" .. i
    end
    local list = table.concat(names, ",")
    local many = assert(loadstring("local " .. list .. " = ... return function(v) if v then "
      .. list .. " = v end return " .. list .. " end"))(unpack(names))
    for _ = 1, 2 do
      assert.same(names, { trip(many)() })
    end
  end)

  it("do not take over the globals that an earlier copy was given", function()
    local one = 1
    local function get() return one, global_of_nobody end -- luacheck: ignore
    local f = trip(get)
    setfenv(f, { global_of_nobody = "theirs" })
    local g = trip(get)
    assert.equal("theirs", (select(2, f())))
    assert.is_nil((select(2, g())))
    assert.equal(_G, getfenv(g))
  end)

  it("arrive without their names and lines, too", function()
    local f = assert(loadstring(string.dump(function() return n end, true))) -- luacheck: ignore
    local up = assert(loadstring("local n = 7 return function() return n end"))()
    local bare = assert(loadstring(string.dump(up, true)))
    debug.setupvalue(bare, 1, 8)
    assert.is_nil(trip(f)())
    assert.equal(8, trip(bare)())
  end)

  it("are told apart however many there are", function()
    local made = {}
    for i = 1, 600 do
      made[i] = assert(loadstring("local n = ... return function() return n + " .. i .. " end"))(i)
    end
    for _ = 1, 2 do
      for i = 1, 600 do
        assert.equal(2 * i, trip(made[i])())
      end
    end
  end)

  it("leave it to LuaJIT which flags a dump may have", function()
    local s = encode(function() return 7 end)
    local at = assert(s:find("\27LJ\2", 1, true)) + 4
    local changed = s:sub(1, at - 1) .. string.char(s:byte(at) + 16) .. s:sub(at + 1)
    local fine, result = pcall(decode, changed) -- later versions know this flag
    if fine then
      assert.equal(7, result())
    else
      assert.matches("^cannot load a function: .*incompatible bytecode", result)
    end
  end)

  it("are refused with another number of upvalues", function()
    local x = 5
    local s = encode(function() return x end)
    -- The number, then the upvalue: tag and eight bytes.
    for _, n in ipairs { 0, 2, 3, 255 } do
      assert.is_false(pcall(decode, s:sub(1, -11) .. string.char(n) .. s:sub(-9)))
    end
    assert.equal(5, decode(s)())
  end)
end

for _, way in ipairs(codec.ways) do
  describe("codec: functions" .. way.name, function()
    setup(way.enter)
    teardown(way.leave)
    suite(way.encode, way.decode)
  end)
end
