--- Parallel loops over buffers.
local helpers = require "helpers"
local plain = require "loop_helpers"
local treadle = require "treadle"

local in_worker, with_clock = plain.in_worker, plain.with_clock

describe("parallel loops", function()
  local pool

  setup(function() pool = treadle.pool("parallel_tasks", { threads = 2 }) end)
  teardown(function()
    pool:close()
    helpers.clean()
  end)

  describe("over a buffer", function()
    local function filled(ctype, n, fn)
      local buf = treadle.buffer(ctype, n)
      for i = 0, n - 1 do
        buf:set(i, fn(i))
      end
      return buf
    end

    it("pfor works in place, in workers and here", function()
      for _, n in ipairs { 0, 1, 2, 1000, 100000 } do
        local buf = filled("double", n, function(i) return i end)
        treadle.pfor(0, n - 1, function(i)
          buf.ptr[i] = in_worker(buf.ptr[i]) * 2
        end, { pool = pool }):await()
        local f = with_clock(0, function()
          return treadle.pfor(0, n - 1, function(i) buf.ptr[i] = buf.ptr[i] + 1 end)
        end)
        assert.equal("resolved", f:state())
        for i = 0, n - 1 do
          assert.equal(2 * i + 1, buf:get(i))
        end
      end
    end)

    it("pmap gives a new buffer of the same type and length", function()
      for _, ctype in ipairs { "double", "float", "uint8_t", "int32_t", "int64_t" } do
        for _, n in ipairs { 0, 1, 100 } do
          local buf = filled(ctype, n, function(i) return i end)
          local got = treadle.pmap(function(x) return in_worker(x) + 1 end, buf):await()
          local here = treadle.pmap(function(x) return x + 1 end, buf):await()
          assert.equal(n, #got)
          assert.equal(n, #here)
          for i = 0, n - 1 do
            assert.equal(i + 1, tonumber(got:get(i)))
            assert.equal(i + 1, tonumber(here:get(i)))
            assert.equal(i, tonumber(buf:get(i)))
          end
        end
      end
    end)

    it("pfilter gives one of what stays, in its order", function()
      for _, n in ipairs { 0, 1, 2, 5000 } do
        local buf = filled("int32_t", n, function(i) return i end)
        for _, fn in ipairs {
          function(x) return in_worker(x) % 7 == 3 end, function(x) return x % 7 == 3 end,
        } do
          local got = treadle.pfilter(fn, buf):await()
          assert.equal(math.floor((n + 3) / 7), #got)
          for i = 0, #got - 1 do
            assert.equal(7 * i + 3, got:get(i))
          end
        end
      end
    end)

    it("preduce folds its elements", function()
      local buf = filled("double", 10000, function(i) return i + 1 end)
      for _, fn in ipairs {
        function(a, b) return in_worker(a) + b end, function(a, b) return a + b end,
      } do
        assert.equal(50005000, treadle.preduce(fn, 0, buf):await())
        assert.equal(1, treadle.preduce(fn, 0, buf:slice(0, 1)):await())
        assert.equal(0, treadle.preduce(fn, 0, buf:slice(0, 0)):await())
      end
    end)

    it("errors name the index from 0", function()
      local buf = filled("double", 100, function(i) return i end)
      local _, err = treadle.pmap(function(x)
        assert(in_worker(x) ~= 70, "seventy")
        return x
      end, buf):pawait()
      assert.equal(70, err.index)
      _, err = treadle.pmap(function(x) return in_worker(x) and "no number" end, buf):pawait()
      assert.is_number(err.index)
      assert.matches("cannot convert 'string' to 'double'", err.message)
    end)

    it("psort sorts numbers of all types in place", function()
      math.randomseed(99)
      for _, ctype in ipairs {
        "double", "float", "int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t", "uint32_t",
        "int64_t", "uint64_t",
      } do
        for _, n in ipairs { 0, 1, 2, 3, 1000, 30000 } do
          local span = ctype:find "8" and 100 or ctype:find "16" and 30000 or 2e9
          local lowest = ctype:find "^u" and 0 or -span
          local buf = filled(ctype, n, function()
            return math.floor(lowest + math.random() * (span - lowest))
          end)
          local sum = 0
          for i = 0, n - 1 do
            sum = sum + tonumber(buf:get(i))
          end
          assert.equal(buf, treadle.psort(buf, nil, { pool = pool }):await())
          for i = 1, n - 1 do
            assert.is_true(buf.ptr[i - 1] <= buf.ptr[i])
            sum = sum - tonumber(buf:get(i))
          end
          assert.equal(sum, n > 0 and tonumber(buf:get(0)) or 0)
        end
      end
    end)

    it("psort knows where -0, infinities and NaN belong", function()
      local n = 40000
      local odd = { [0] = 0, -0, math.huge, -math.huge, 1e-310, -1e-310, 1e308, -1e308, 0 / 0 }
      local buf = filled("double", n, function(i) return odd[i % 9] end)
      treadle.psort(buf, nil, { pool = pool }):await()
      local count = math.floor(n / 9)
      assert.equal(-math.huge, buf:get(0))
      assert.equal(-1e308, buf:get(count + 5))
      for i = 1, n - 1 do
        local a, b = buf:get(i - 1), buf:get(i)
        assert.is_true(a <= b or b ~= b)
      end
      assert.is_true(buf:get(n - 1) ~= buf:get(n - 1))
    end)

    it("psort takes another order, and structs", function()
      local ffi = require "ffi"
      ffi.cdef "typedef struct { int32_t key, at; } spec_pair;"
      for _, n in ipairs { 0, 1, 100, 30000 } do
        local buf = filled("double", n, function(i) return i * 7919 % 1000 end)
        treadle.psort(buf, function(a, b) return a > b end, { pool = pool }):await()
        for i = 1, n - 1 do
          assert.is_true(buf.ptr[i - 1] >= buf.ptr[i])
        end
        buf:close()
      end
      local n = 1000
      local structs = treadle.buffer("spec_pair", n)
      for i = 0, n - 1 do
        structs.ptr[i].key, structs.ptr[i].at = i * 7919 % 10, i
      end
      treadle.psort(structs, function(a, b) return a.key < b.key end):await()
      for i = 1, n - 1 do
        local a, b = structs.ptr[i - 1], structs.ptr[i]
        assert.is_true(a.key < b.key or a.key == b.key and a.at < b.at)
      end
    end)

    it("psort sorts lists of many numbers by the same means", function()
      local list = {}
      for i = 1, 100000 do
        list[i] = (i * 7919 % 100003 - 50000) / 8
      end
      local sorted = treadle.psort(list, nil, { pool = pool }):await()
      table.sort(list)
      assert.same(list, sorted)
    end)

    it("lets go of it when the loop is over or cancelled", function()
      local buf = treadle.buffer("double", 1000)
      local e = treadle.event()
      local f = treadle.pfor(0, 999, function(i)
        e:wait()
        buf.ptr[i] = in_worker(i)
      end, { pool = pool })
      assert.is_false(f:wait(0.02))
      f:cancel()
      pool:drained():await()
      assert.equal(0, buf:get(999))
      assert.same({ 2 }, pool:map("double", { 1 }):await())
    end)

    it("psort writes nowhere else, though the numbers change meanwhile #racing", function()
      local n = 100000
      local buf = filled("double", n, function(i) return i % 100 end)
      local stop = treadle.event()
      local f = pool:run(function(b, e, count)
        local x, t = 1, require "treadle"
        while not e:is_set() do
          for i = 0, count - 1, 7 do
            b.ptr[i] = x
          end
          x = x > 1e300 and -1 or x < 0 and 0 or x * 1e30
          t.sleep(0)
        end
      end, { buf, stop, n })
      for _ = 1, 3 do
        assert.equal(buf, treadle.psort(buf, nil, { pool = pool }):await())
      end
      stop:set()
      f:await()
      for i = 0, n - 1 do
        assert.is_number(buf:get(i))
      end
    end)

    it("a psort that is cancelled leaves numbers #racing", function()
      local n = 200000
      local buf = filled("double", n, function(i) return -i * 1e-320 end)
      for _, seconds in ipairs { 0, 0.001, 0.005, 0.02 } do
        local f = treadle.psort(buf, nil, { pool = pool })
        f:wait(seconds)
        f:cancel { force = true }
        for i = 0, n - 1 do
          local x = buf:get(i)
          assert(type(x) == "number" and x <= 0)
        end
      end
    end)
  end)
end)
