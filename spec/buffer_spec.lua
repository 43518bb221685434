local ffi = require "ffi"
local helpers = require "helpers"
local treadle = require "treadle"

local error_here = helpers.error_here

ffi.cdef [[
  struct buffer_pixel { uint8_t r, g, b; float depth; };
  typedef struct { int x, y; } buffer_nameless;
  struct buffer_pointer { int n; char *p; };
  struct buffer_unknown;
  enum buffer_color { BUFFER_RED, BUFFER_BLUE };
]]

describe("a buffer", function()
  it("is zeroed, and holds what is set", function()
    local b = treadle.buffer("double", 10)
    assert.equal(10, #b)
    for i = 0, 9 do
      assert.equal(0, b:get(i))
      b:set(i, i / 2)
    end
    assert.equal(4.5, b:get(9))
    assert.equal(4.5, b.ptr[9])
    assert.is_true(b.ptr == b.ptr and rawequal(b.ptr, b.ptr))
    assert.matches("^treadle.buffer: 0x%x+$", tostring(b))
  end)

  it("holds numbers of every kind", function()
    for name, values in pairs {
      int8_t = { -128, 127 }, uint8_t = { 0, 255 }, int16_t = { -32768, 32767 },
      uint16_t = { 0, 65535 }, int32_t = { -2 ^ 31, 2 ^ 31 - 1 }, uint32_t = { 0, 2 ^ 32 - 1 },
      float = { 0.5, -2 ^ 100 }, double = { 0.1, math.huge }, bool = { true, false },
      int64_t = { -2LL ^ 62, -1LL }, uint64_t = { 0xffffffffffffffffULL, 1ULL },
      ["enum buffer_color"] = { ffi.new("enum buffer_color", 1), ffi.new("enum buffer_color", 0) },
      complex = { ffi.new("complex", 1, 2), ffi.new("complex", 3, 4) },
    } do
      local b = treadle.buffer(name, 2)
      assert.equal(ffi.sizeof(name) * 2, #b:string())
      for i = 0, 1 do
        b:set(i, values[i + 1])
        local v = b:get(i)
        assert.is_true(values[i + 1] == v or name == "complex" and v.re == 1 + 2 * i, name)
      end
    end
  end)

  it("holds structs, and gives copies of them", function()
    local b = treadle.buffer(ffi.typeof "struct buffer_pixel", 3)
    b:set(1, { r = 7, depth = 0.5 })
    local pixel = b:get(1)
    assert.equal(7, pixel.r)
    pixel.r = 8
    assert.equal(7, b:get(1).r)
    b.ptr[1].g = 9
    assert.equal(9, b:get(1).g)
    b:fill(pixel)
    assert.equal(8, b:get(2).r)
    local c = treadle.buffer("buffer_nameless", 2)
    c:set(1, { x = 1, y = 2 })
    assert.equal(2, c:get(1).y)
  end)

  it("is aligned", function()
    for _, n in ipairs { 0, 1, 1000, 8191, 8192, 100000 } do
      local address = tonumber(ffi.cast("uintptr_t", treadle.buffer("double", n).ptr))
      assert.equal(0, address % 64)
      if n * 8 >= 65536 then
        assert.equal(0, address % 4096)
      end
    end
  end)

  it("is made of a string", function()
    local b = treadle.buffer("a\0b")
    assert.equal(3, #b)
    assert.equal(98, b:get(2))
    assert.equal("a\0b", b:string())
    assert.equal(0, #treadle.buffer "")
    assert.equal("", treadle.buffer(""):string())
    local c = treadle.buffer("uint64_t", 1)
    c:set(0, -1)
    assert.is_true(c:get(0) == 0xffffffffffffffffULL)
  end)

  it("checks bounds", function()
    local b = treadle.buffer("int", 3)
    for _, i in ipairs { -1, 3, 0.5, 0 / 0, math.huge } do
      assert.error_matches(function() b:get(i) end,
        "bad argument #1 to 'get' %(a whole number from 0 to 2 expected, got ")
      assert.error_matches(function() b:set(i, 1) end, "bad argument #1 to 'set'")
    end
    assert.equal("bad argument #1 to 'get' (a whole number from 0 to 2 expected, got 3)",
      error_here(function() b:get(3) end))
    assert.equal("bad argument #1 to 'get' (a whole number from 0 to 2 expected, got string)",
      error_here(function() b:get("1") end))
    assert.equal("bad argument #1 to 'get' (the buffer is empty)",
      error_here(function() treadle.buffer("int", 0):get(0) end))
    assert.matches("^bad argument #2 to 'set' %(cannot convert 'string' to 'int'",
      error_here(function() b:set(0, "x") end))
    assert.equal("bad argument #1 to 'get' (buffer expected, got nil): call it with a colon",
      error_here(function() b.get() end))
  end)

  it("checks bounds in compiled code, too", function()
    local b = treadle.buffer("double", 1000)
    local function run(last)
      for i = 0, last do
        b:set(i, b:get(i) + 1)
      end
    end
    for _ = 1, 10 do
      run(999)
    end
    assert.equal(10, b:get(999))
    assert.is_false((pcall(run, 1000)))
    assert.equal(11, b:get(999))
    b:close()
    assert.error_matches(function() run(999) end, "the buffer is closed")
  end)

  it("refuses types that cannot be shared", function()
    for name, text in pairs {
      ["int *"] = "got 'int %*'", ["struct buffer_pointer"] = "got 'struct buffer_pointer'",
      ["struct buffer_unknown"] = "got 'struct buffer_unknown'",
      ["double[4]"] = "got 'double %[4%]'", ["double[?]"] = "got 'double %[%?%]'",
      void = "got 'void'",
    } do
      local message = error_here(function() treadle.buffer(name, 1) end)
      assert.matches("^bad argument #1 to 'buffer' %(a number or a struct without", message)
      assert.matches(text, message)
    end
    assert.matches("^bad argument #1 to 'buffer' %(.*expected near 'doble'",
      error_here(function() treadle.buffer("doble", 1) end))
    assert.matches("^bad argument #1 to 'buffer' %(string expected, got nil",
      error_here(function() treadle.buffer() end))
    assert.matches("^bad argument #1 to 'buffer' %(string or ctype expected, got table",
      error_here(function() treadle.buffer({}, 1) end))
  end)

  it("refuses lengths that are none, and such that no machine has", function()
    for _, n in ipairs { -1, 0.5, 0 / 0, math.huge, 2 ^ 54 } do
      assert.matches("^bad argument #2 to 'buffer' %(a whole number of at least 0 expected",
        error_here(function() treadle.buffer("double", n) end))
    end
    assert.equal("bad argument #2 to 'buffer' (a whole number of at least 0 expected, got nil)",
      error_here(function() treadle.buffer(ffi.typeof "int") end))
    for _, n in ipairs { 2 ^ 53, 2 ^ 50, 2 ^ 45 } do
      assert.matches("^not enough memory for a buffer of %d+ bytes",
        error_here(function() treadle.buffer("double", n) end))
    end
  end)

  it("has slices that share its memory", function()
    local b = treadle.buffer("int", 10)
    local s = b:slice(2, 3)
    assert.equal(3, #s)
    s:set(0, 7)
    assert.equal(7, b:get(2))
    assert.equal(8, #b:slice(2))
    assert.equal(0, #b:slice(10))
    local inner = s:slice(1, 2)
    inner:set(1, 9)
    assert.equal(9, b:get(4))
    assert.is_false(pcall(s.get, s, 3))
    b:close()
    assert.equal(9, s:get(2))
    for _, range in ipairs { { -1, 1 }, { 4, 0 }, { 0, 4 }, { 1, 3 }, { 0.5, 1 }, { 0, 0.5 } } do
      assert.is_false((pcall(s.slice, s, range[1], range[2])))
      assert.is_false((pcall(s.string, s, range[1], range[2])))
    end
  end)

  it("is filled, and copied into", function()
    for _, n in ipairs { 0, 1, 2, 3, 1000, 100001 } do
      local b = treadle.buffer("uint16_t", n):fill(513)
      assert.equal(("\1\2"):rep(n), b:string())
    end
    local b = treadle.buffer("double", 4):copy_from { 1, 2, 3 }
    assert.equal(3, b:get(2))
    assert.equal(0, b:get(3))
    assert.equal(b, b:copy_from(treadle.buffer("int", 2):fill(-1)))
    assert.same({ -1, -1, 3 }, { b:get(0), b:get(1), b:get(2) })
    b:slice(1):copy_from(b:slice(0, 3)) -- they overlap
    assert.same({ -1, -1, -1, 3 }, { b:get(0), b:get(1), b:get(2), b:get(3) })
    b:copy_from(treadle.buffer("double", 1):fill(5):string())
    assert.equal(5, b:get(0))
    assert.equal("\3\4", treadle.buffer("\1\2\3\4"):string(2))
    assert.equal("\2\3", treadle.buffer("\1\2\3\4"):string(1, 2))
  end)

  it("does not take what does not fit", function()
    local b = treadle.buffer("int", 2)
    assert.equal("bad argument #1 to 'copy_from' (at most 2 elements expected, got 3)",
      error_here(function() b:copy_from { 1, 2, 3 } end))
    assert.equal("bad argument #1 to 'copy_from' (at most 8 bytes expected, got 9)",
      error_here(function() b:copy_from "123456789" end))
    assert.equal("bad argument #1 to 'copy_from' (a multiple of 4 bytes expected, got 7)",
      error_here(function() b:copy_from "1234567" end))
    assert.equal("bad argument #1 to 'copy_from' (at most 2 elements expected, got 3)",
      error_here(function() b:copy_from(treadle.buffer("int", 3)) end))
    assert.matches("^bad argument #1 to 'copy_from' %(cannot convert",
      error_here(function() b:copy_from { {} } end))
    assert.matches("^bad argument #1 to 'fill' %(cannot convert",
      error_here(function() b:fill({}) end))
    for _, src in ipairs { 1, true, treadle.event(), io.stdout } do
      assert.matches("^bad argument #1 to 'copy_from' %(buffer, string or list expected, got "
        .. type(src), error_here(function() b:copy_from(src) end))
    end
  end)

  it("makes ordinary NaNs of those in a string", function()
    local strange = ("\255"):rep(8)
    local b = treadle.buffer("double", 2):copy_from(strange .. ("\0"):rep(8))
    assert.is_true(type(b:get(0)) == "number" and b:get(0) ~= b:get(0))
    assert.not_equal(strange, b:string(0, 1))
    assert.equal(0, b:get(1))
    local s = treadle.buffer("struct buffer_pixel", 2):copy_from(("\255"):rep(16))
    assert.equal(255, s:get(1).g)
    assert.is_true(type(s:get(1).depth) == "number" and s:get(1).depth ~= s:get(1).depth)
    assert.equal("\255\255\255", s:string(1):sub(1, 3))
    assert.not_equal("\255\255\255\255", s:string(1):sub(5))
  end)

  it("is kept by its pointer", function()
    local p = treadle.buffer("double", 100000).ptr
    for i = 0, 99999 do
      p[i] = i
    end
    collectgarbage()
    collectgarbage()
    for _ = 1, 20 do
      treadle.buffer("double", 100000):fill(-1)
    end
    for i = 0, 99999 do
      assert(p[i] == i)
    end
  end)

  it("gives its memory back when nobody has it", function()
    local before = helpers.resident()
    for _ = 1, 100 do -- 8 MiB each
      treadle.buffer("double", 2 ^ 20):fill(1)
    end
    assert.is_true(helpers.resident() - before < 2 ^ 26)
    local b = treadle.buffer("double", 2 ^ 25):fill(1)
    assert.is_true(helpers.resident() - before > 2 ^ 27)
    b:close()
    assert.is_true(helpers.resident() - before < 2 ^ 26)
  end)

  it("says that it is closed", function()
    local b = treadle.buffer("int", 3)
    local s = b:slice(0, 1)
    b:close()
    b:close()
    for _, name in ipairs { "get", "set", "slice", "string", "fill", "copy_from" } do
      assert.equal("the buffer is closed", error_here(function() b[name](b, 0, 0) end))
    end
    assert.equal("the buffer is closed", error_here(function() return b.ptr end))
    assert.equal("the buffer is closed", error_here(function() return #b + 1 end))
    assert.equal("treadle.buffer (closed)", tostring(b))
    assert.equal(0, s:get(0))
  end)
end)

describe("a buffer that travels", function()
  local done = helpers.watch()
  local pool

  before_each(function() pool = treadle.pool("buffer_tasks", { threads = 2 }) end)
  after_each(function() pool:close() end)

  it("is the same memory", function()
    local b = treadle.buffer("double", 1000)
    pool.call.set(b, 7, 0.5):await()
    assert.equal(0.5, b:get(7))
    b:set(8, 1)
    assert.equal(1.5, pool.call.sum(b):await())
    assert.is_true(rawequal(b, pool.call.echo({ b }):await()[1]))
    local s = b:slice(7, 2)
    assert.equal(1.5, pool.call.sum(s):await())
    assert.is_true(rawequal(s, (pool.call.echo(s):await())))
  end)

  it("costs nothing of max_payload", function()
    local small = treadle.pool("buffer_tasks", { threads = 1, max_payload = 64 })
    local b = treadle.buffer("uint8_t", 2 ^ 30)
    b:set(2 ^ 30 - 1, 3)
    assert.equal(3, small.call.get(b, 2 ^ 30 - 1):await())
    b:close()
    small:close()
  end)

  it("needs its struct's declaration only where elements are used", function()
    local b = treadle.buffer("struct buffer_pixel", 3)
    b:set(2, { r = 7 })
    assert.equal(b, pool.call.echo(b):await())
    local ok, err = pool.call.get(b, 2):pawait()
    assert.is_false(ok)
    assert.equal("task", err.kind)
    assert.matches("C type 'struct buffer_pixel' is not known here", err.message, 1, true)
    local r = pool:run(function(buf)
      require("ffi").cdef "struct buffer_pixel { uint8_t r, g, b; float depth; };"
      return buf:get(2).r
    end, { b }, { worker = 1 }):await()
    assert.equal(7, r)
    ok, err = pool:run(function(buf)
      require("ffi").cdef "struct buffer_pixel { uint8_t r; };"
      return buf:get(2).r
    end, { b }, { worker = 2 }):pawait()
    assert.is_false(ok)
    assert.matches("C type 'struct buffer_pixel' has another size here", err.message, 1, true)
  end)

  it("is let go of by a task that is stopped in a compiled loop #computing", function()
    local before = helpers.resident()
    for _, way in ipairs { "timeout", "cancel" } do
      local f = helpers.with_limit(function(seconds)
        local b, started = treadle.buffer("double", 2 ^ 24):fill(1), treadle.event()
        local f = pool:run("spin", { treadle.move(b), started },
          { timeout = way == "timeout" and seconds or nil })
        helpers.poll_until(function() return started:is_set() or f:state() ~= "pending" end)
        return started:is_set() and f
      end)
      if way == "cancel" then
        f:cancel { force = true }
      end
      local ok, err = f:pawait()
      assert.is_false(ok)
      assert.equal(way == "timeout" and "timeout" or "cancelled", err.kind)
      helpers.eventually(function() return helpers.resident() - before < 2 ^ 26 end)
    end
    local b, started = treadle.buffer("double", 2 ^ 24):fill(1), treadle.event()
    local f = pool.call.spin(treadle.move(b), started)
    assert.is_true(started:wait(helpers.TIMEOUT))
    pool:terminate()
    assert.equal("closed", select(2, f:pawait()).kind)
    helpers.eventually(function() return helpers.resident() - before < 2 ^ 26 end)
  end)

  it("is let go of when its call never runs", function()
    local before = helpers.resident()
    local small = treadle.pool("buffer_tasks", { threads = 1 })
    local started = treadle.event()
    local stuck = small.call.hold(started, treadle.event())
    assert.is_true(started:wait(helpers.TIMEOUT))
    local f = small.call.sum(treadle.move(treadle.buffer("double", 2 ^ 24):fill(1)))
    f:cancel()
    small:terminate()
    assert.is_false((stuck:pawait()))
    small:close()
    helpers.eventually(function() return helpers.resident() - before < 2 ^ 26 end)
  end)

  it("leaves nothing behind", function()
    pool:close()
    done()
  end)
end)

describe("a moved buffer", function()
  local pool

  before_each(function() pool = treadle.pool("buffer_tasks", { threads = 1 }) end)
  after_each(function() pool:close() end)

  local function is_moved(b)
    local ok, err = pcall(function() return #b end)
    return not ok and err:find("the buffer was moved", 1, true) ~= nil
  end

  it("is dead for the sender, with all slices", function()
    local b = treadle.buffer("int", 10):fill(1)
    local s, other = b:slice(2, 3), treadle.buffer("int", 1)
    assert.equal(10, pool.call.sum(treadle.move(b)):await())
    assert.is_true(is_moved(b) and is_moved(s))
    assert.equal(1, #other)
    assert.equal("the buffer was moved", error_here(function() b:get(0) end))
    assert.equal("the buffer was moved", error_here(function() return b.ptr end))
    assert.equal("treadle.buffer (moved)", tostring(b))
    assert.error_matches(function() treadle.move(b) end, "the buffer was moved")
    local ok, err = pool.call.echo(b):pawait()
    assert.is_false(ok)
    assert.matches("cannot send a moved buffer %(arguments%[1%]%)", err.message)
  end)

  it("is dead as soon as the call is made, and comes back as another handle", function()
    local b = treadle.buffer("int", 4):fill(3)
    local f = pool.call.echo({ treadle.move(b), b })
    assert.is_true(is_moved(b))
    local back = f:await()
    assert.is_true(rawequal(back[1], back[2]))
    assert.equal(3, back[1]:get(3))
    assert.is_true(is_moved(b))
  end)

  it("may be moved by a result", function()
    local b = treadle.buffer("int", 4):fill(3)
    pool.call.keep(treadle.move(b)):await()
    local back = pool.call.give():await()
    assert.equal(3, back:get(0))
    local ok, err = pool.call.look():await()
    assert.is_false(ok)
    assert.matches("the buffer was moved", err)
  end)

  it("may be moved by an error, by a pool's data, and into a shared table", function()
    pool.call.keep(treadle.buffer("int", 4):fill(3)):await()
    local ok, err = pool.call.fail_with_kept():pawait()
    assert.is_false(ok)
    assert.equal(3, err.value[1]:get(0))
    assert.is_false((pool.call.look():await()))
    local b = treadle.buffer("int", 4):fill(3)
    local t = treadle.shared { treadle.move(b) }
    assert.is_true(is_moved(b))
    assert.equal(3, t[1]:get(0))
    local c = treadle.buffer("int", 4):fill(3)
    treadle.pool("buffer_tasks", { threads = 1, data = treadle.move(c) }):close()
    assert.is_true(is_moved(c))
  end)

  it("leaves what another state was given before", function()
    local b = treadle.buffer("int", 4):fill(3)
    pool.call.keep(b:slice(1)):await()
    assert.equal(12, pool.call.sum(treadle.move(b)):await())
    assert.is_true(pool.call.look():await())
    assert.is_true(is_moved(b))
  end)

  it("may be a slice: what lies in it goes with it, the rest stays", function()
    local b = treadle.buffer("int", 10):fill(1)
    local left, right = b:slice(0, 5), b:slice(5)
    local inner, across = left:slice(1, 2), b:slice(4, 2)
    assert.equal(5, pool.call.sum(treadle.move(left)):await())
    assert.is_true(is_moved(left) and is_moved(inner))
    assert.same({ 10, 5, 2 }, { #b, #right, #across })
  end)

  it("stays with a sender whose call is refused", function()
    local b = treadle.buffer("int", 4):fill(3)
    local s = b:slice(1)
    local ok, err = pool.call.echo(treadle.move(b), coroutine.create(print)):pawait()
    assert.is_false(ok)
    assert.equal("payload", err.kind)
    assert.equal(3, b:get(0) * s:get(0) / 3)

    local small = treadle.pool("buffer_tasks", { threads = 1, max_payload = 64 })
    ok, err = small.call.echo(treadle.move(b), ("x"):rep(100)):pawait()
    assert.is_false(ok)
    assert.equal("payload", err.kind)
    small:close()
    ok, err = small.call.echo(treadle.move(b)):pawait()
    assert.is_false(ok)
    assert.equal("closed", err.kind)
    ok, err = small:run("echo", { b }, { transfer = { b } }):pawait()
    assert.is_false(ok)
    assert.equal("closed", err.kind)

    local full = treadle.pool("buffer_tasks", { threads = 1, max_queue = 0 })
    local started = treadle.event()
    local busy = full.call.hold(started, treadle.event())
    assert.is_true(started:wait(helpers.TIMEOUT))
    ok, err = full.call.echo(treadle.move(b)):pawait()
    assert.is_false(ok)
    assert.equal("queue_full", err.kind)
    full:terminate()
    busy:pawait()
    ok, err = full.call.echo(treadle.move(b)):pawait()
    assert.is_false(ok)
    assert.equal("closed", err.kind)
    full:close()
    assert.equal(3, b:get(0) * s:get(0) / 3)
    assert.equal(12, pool.call.sum(treadle.move(b)):await())
    assert.is_true(is_moved(s))
  end)

  it("stays with a sender whose call comes when the pool is closing", function()
    local closing = treadle.pool("buffer_tasks", { threads = 1 })
    local started, ended = treadle.event(), treadle.event()
    local busy = closing.call.hold(started, ended)
    assert.is_true(started:wait(helpers.TIMEOUT))
    local closed = treadle.spawn(closing.close, closing)
    local b = treadle.buffer("int", 4)
    local s = b:slice(1)
    for _, f in ipairs {
      closing.call.echo(treadle.move(b)), closing:run("echo", { b }, { transfer = { b } }),
      closing:run("echo", { treadle.move(b) }, { worker = 1 }),
    } do
      local ok, err = f:pawait()
      assert.is_false(ok)
      assert.equal("closed", err.kind)
    end
    ended:set()
    busy:await()
    closed:await()
    assert.equal(7, #b + #s)
  end)

  it("is moved when a call that waits is taken", function()
    local full = treadle.pool("buffer_tasks", { threads = 1, max_queue = 0, on_full = "wait" })
    local started, ended = treadle.event(), treadle.event()
    local busy = full.call.hold(started, ended)
    assert.is_true(started:wait(helpers.TIMEOUT))
    local b, c = treadle.buffer("int", 4):fill(3), treadle.buffer("int", 1)
    local late = treadle.spawn(function()
      return full:run("echo", { treadle.move(b) }, { timeout = 0.001 }):await()
    end)
    assert.is_false((late:pawait()))
    assert.equal(4, #b)
    local first, resolve = treadle.future()
    local waits = treadle.spawn(function()
      return full:run("echo", { first, { b } }, { transfer = { b } }):await()
    end)
    local other = treadle.spawn(function() return full.call.sum(treadle.move(c)):await() end)
    resolve(1)
    assert.equal(5, #b + #c)
    ended:set()
    busy:await()
    assert.equal(0, other:await())
    assert.equal(3, select(2, waits:await())[1]:get(3))
    assert.is_true(is_moved(b) and is_moved(c))
    full:close()
  end)

  it("stays with the sender until the other arguments are there", function()
    local b = treadle.buffer("int", 4):fill(3)
    local first, resolve = treadle.future()
    local f = pool.call.echo(treadle.move(b), first)
    b:set(0, 4)
    resolve(1)
    assert.equal(4, f:await():get(0))
    assert.is_true(is_moved(b))
    local c = treadle.buffer("int", 1)
    local second, _, reject = treadle.future()
    f = pool.call.echo(treadle.move(c), second)
    reject("no")
    assert.is_false((f:pawait()))
    assert.equal(0, c:get(0))
  end)

  it("is named by option transfer", function()
    local a, b, c = treadle.buffer("int", 1), treadle.buffer("int", 2), treadle.buffer("int", 3)
    local back = pool:run("echo", { { a, { b }, c } }, { transfer = { a, b } }):await()
    assert.is_true(is_moved(a) and is_moved(b))
    assert.equal(c, back[3])
    assert.same({ 1, 2 }, { #back[1], #back[2][1] })
    assert.equal(3, pool:run(function(buf) return #buf end, { c }, { transfer = { c } }):await())
    assert.is_true(is_moved(c))
    assert.equal(0, pool:run("echo", { 0 }, { transfer = {} }):await())
  end)

  it("is refused by option transfer where it is not among the arguments", function()
    local a, b = treadle.buffer("int", 1), treadle.buffer("int", 2)
    local ok, err = pool:run("echo", { a }, { transfer = { a, b } }):pawait()
    assert.is_false(ok)
    assert.equal("payload", err.kind)
    assert.matches("buffer 2 of 'transfer' is not among the arguments", err.message)
    assert.same({ 1, 2 }, { #a, #b })
    ok, err = pool:run("echo", { 1 }, { transfer = { a } }):pawait()
    assert.is_false(ok)
    assert.equal("payload", err.kind)
    assert.equal("bad argument #3 to 'run' (option 'transfer': a list expected, got userdata)",
      error_here(function() pool:run("echo", { a }, { transfer = a }) end))
    local mixed = { transfer = { a, 1 } }
    assert.equal("bad argument #3 to 'run' (option 'transfer': a list of buffers expected, got a "
      .. "number in it)", error_here(function() pool:run("echo", { a }, mixed) end))
    assert.equal("bad argument #3 to 'run' ('transfer' gives away what 'retries' would send again)",
      error_here(function() pool:run("echo", { a }, { transfer = { a }, retries = 1 }) end))
    b:close()
    assert.equal("bad argument #3 to 'run' (option 'transfer': the buffer is closed)",
      error_here(function() pool:run("echo", { b }, { transfer = { b } }) end))
  end)

  it("is moved to the host itself where the pool has no room", function()
    local full = treadle.pool("buffer_tasks", { threads = 1, max_queue = 0, on_full = "run" })
    local started = treadle.event()
    local busy = full.call.hold(started, treadle.event())
    assert.is_true(started:wait(helpers.TIMEOUT))
    local b = treadle.buffer("int", 4):fill(3)
    assert.equal(12, full.call.sum(treadle.move(b)):await())
    assert.is_true(is_moved(b))
    full:terminate()
    busy:pawait()
    full:close()
  end)

  it("is moved by a message, once that is sent", function()
    local ch = treadle.channel(1)
    local b = treadle.buffer("int", 4):fill(3)
    local s = b:slice(1, 2)
    assert.is_true(ch:send({ treadle.move(b), "x" }))
    assert.is_true(is_moved(b) and is_moved(s))
    local other = treadle.buffer("int", 4):fill(5)
    local message = treadle.move(other)
    assert.is_false(ch:try_send(message))
    assert.is_false(ch:send(message, 0))
    assert.is_false(ch:send(message, 0.001))
    assert.is_nil(treadle.select { { ch, "send", message }, timeout = 0.001 })
    assert.equal(4, #other)
    local waiting = treadle.spawn(ch.send, ch, message)
    assert.equal(4, #other)
    assert.equal(3, ch:recv()[1]:get(3))
    assert.is_true(waiting:await())
    assert.is_true(is_moved(other))
    assert.equal(5, ch:recv():get(3))
    ch:close()
    local kept = treadle.buffer("int", 4)
    assert.is_false((pcall(ch.send, ch, treadle.move(kept))))
    assert.is_false((ch:try_send(treadle.move(kept))))
    assert.equal(4, #kept)
  end)

  it("is moved by the case of a select that sends it, and by no other", function()
    local full, free = treadle.channel(1), treadle.channel(1)
    full:send(0)
    local a, b = treadle.buffer("int", 1), treadle.buffer("int", 1):fill(2)
    local cases = { { full, "send", treadle.move(a) }, { free, "send", treadle.move(b) } }
    assert.equal(2, (treadle.select(cases)))
    assert.is_true(is_moved(b))
    assert.equal(1, #a)
    cases[2] = { free, "send", { treadle.move(treadle.buffer("int", 1)) } }
    local waiting = treadle.spawn(treadle.select, cases)
    assert.equal(1, #a)
    assert.equal(0, (full:recv()))
    assert.equal(1, (waiting:await()))
    assert.is_true(is_moved(a))
    assert.equal(2, free:recv():get(0))
    assert.equal(0, full:recv():get(0))
    assert.same({ nil, false, "empty" }, { free:try_recv() })
  end)

  it("is its receiver's, also where that is the state that sends it", function()
    local ch = treadle.channel(0)
    for _, way in ipairs { "send", "select" } do
      local b = treadle.buffer("int", 4):fill(3)
      local s = b:slice(1, 1)
      local sender = treadle.spawn(function()
        if way == "send" then
          return ch:send(treadle.move(b))
        end
        return treadle.select { { ch, "send", treadle.move(b) } } == 1
      end)
      local got = ch:recv()
      assert.equal(3, got:get(3))
      assert.is_true(sender:await())
      assert.is_true(is_moved(b) and is_moved(s))
      assert.equal(3, got:slice(1):get(2))
      assert.is_true(rawequal(got, (pool.call.echo(got):await())))
      local receiver = treadle.spawn(ch.recv, ch)
      assert.is_true(ch:send(treadle.move(got)))
      assert.is_true(is_moved(got))
      assert.equal(3, receiver:await():get(0))
    end
  end)

  it("is the sender's, if it was not sent in time, and then travels as ever", function()
    local ch = treadle.channel(0)
    local b = treadle.buffer("int", 4):fill(3)
    assert.is_false(ch:send(treadle.move(b), 0.001))
    assert.is_nil(treadle.select { { ch, "send", treadle.move(b) }, timeout = 0.001 })
    assert.is_true(rawequal(b, (pool.call.echo(b):await())))
    local waiting = treadle.spawn(ch.send, ch, treadle.move(b))
    waiting:cancel()
    assert.is_false((waiting:pawait()))
    assert.equal(b, (pool.call.echo(b):await()))
    assert.equal(12, pool.call.sum(treadle.move(b)):await())
    assert.is_true(is_moved(b))
  end)

  it("is moved by a message to another state", function()
    local ch = treadle.channel(0)
    local f = pool:run(function(c)
      local sum = 0
      for i = 1, 100 do
        local got = c:recv()
        sum = sum + got:get(0) * (i % 2 == 0 and 1 or 2)
        got:close()
      end
      return sum
    end, { ch })
    for i = 1, 100 do
      local b = treadle.buffer("int", 1000):fill(i)
      local s = b:slice(5, 10)
      assert.is_true(ch:send(treadle.move(b)))
      assert.is_true(is_moved(b) and is_moved(s))
    end
    assert.equal(2550 + 2 * 2500, f:await())
  end)

  it("takes no other handles", function()
    assert.matches("^bad argument #1 to 'move' %(buffer expected, got nil",
      error_here(function() treadle.move() end))
    assert.matches("^bad argument #1 to 'move' %(buffer expected, got userdata",
      error_here(function() treadle.move(treadle.event()) end))
    assert.same({ false, "bad argument #1 to 'move' (buffer expected, got number)" },
      { pcall(treadle.move, 1) })
    assert.error_matches(function() treadle.encode(treadle.move(treadle.buffer("int", 1))) end,
      "cannot keep in a string buffer")
  end)

  it("goes round without end in the memory of one", function()
    local before = helpers.resident()
    for i = 1, 50 do -- 16 MiB each
      local b = treadle.buffer("double", 2 ^ 21):fill(i)
      assert.equal(i, pool.call.get(treadle.move(b), 2 ^ 21 - 1):await())
    end
    assert.is_true(helpers.resident() - before < 2 ^ 28)
  end)
end)
