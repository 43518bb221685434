local codec = require "spec.support.codec"
local ffi = require "ffi"

local message_of, same = codec.message_of, codec.same

local function suite(encode, decode)
  local function trip(...)
    return decode(encode(...))
  end

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
end

for _, way in ipairs(codec.ways) do
  describe("codec: FFI data" .. way.name, function()
    setup(way.enter)
    teardown(way.leave)
    suite(way.encode, way.decode)
  end)
end
