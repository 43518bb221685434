local codec = require "spec.support.codec"

local count, message_of, position_of, same =
  codec.count, codec.message_of, codec.position_of, codec.same
local corpus = codec.corpus
local module = codec.module

local function suite(encode, decode, scale)
  local function trip(...)
    return decode(encode(...))
  end

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
      assert.equal("cannot send a file (arguments[2])", message_of(encode, 1, io.stdout))
      assert.equal("cannot send a userdata (arguments[1])", message_of(encode, newproxy(true)))
      assert.equal("cannot send a userdata (arguments[1])", message_of(encode, newproxy(false)))
    end)

    it("name a userdata as its metatable does", function()
      local timer = newproxy(true)
      getmetatable(timer).__name = "uv_timer"
      assert.equal("cannot send a userdata, 'uv_timer' (arguments[1].t)",
        message_of(encode, { t = timer }))
      getmetatable(timer).__name = {}
      assert.equal("cannot send a userdata (arguments[1])", message_of(encode, timer))
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
      if not module then
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
      assert.matches("bad argument #1 to 'decode' %(string expected, got nil%)",
        message_of(decode))
      assert.matches("string expected, got number", message_of(decode, 1))
    end)

    it("refuses other versions, unknown tags and bytes after the end", function()
      assert.equal("malformed payload: not of version 1", message_of(decode, ""))
      assert.equal("malformed payload: not of version 1", message_of(decode, "\2\0"))
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

    it("refuses shared objects, whose addresses anybody could make up", function()
      local address = ("\0\1"):rep(4)
      for _, s in ipairs {
        "\129\0", "\129\1\21\0\0\0\0" .. address .. "\1\0\0\0",
        "\129\1\22\0\0\0\0\1\0\0\0" .. address .. "\1\0\0\0", "\129\1\0\255\255\255\255",
      } do
        assert.equal("malformed payload: shared objects", message_of(decode, s))
      end
      assert.matches("a shared object that does not follow", message_of(decode, "\1\1\21\0\0\0\0"))
      assert.matches("truncated", message_of(decode, "\1\1\22\0\0\0\0"))
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
      if not module then
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

for _, way in ipairs(codec.ways) do
  describe("codec: payloads" .. way.name, function()
    setup(way.enter)
    teardown(way.leave)
    suite(way.encode, way.decode, way.scale)
  end)
end
