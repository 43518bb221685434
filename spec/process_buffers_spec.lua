--- Buffers that workers in processes and their host have together.
local helpers = require "helpers"
local treadle = require "treadle"

local atomics = treadle.atomics

require("ffi").cdef [[
typedef struct { double a, b; } crossing_pair;
typedef union { double number; uint64_t bits; } crossing_cell;
typedef struct { crossing_cell cells[2]; } crossing_cells;
]]

local PROCESS = { process = true }

local function int_buffer(n)
  return treadle.buffer("int", n or 10, PROCESS)
end

local function open(opts)
  opts = opts or {}
  opts.runtime, opts.permissions = "process", "unrestricted"
  opts.threads = opts.threads or 1
  return treadle.pool("crossing_tasks", opts)
end

describe("a buffer that goes to a process", function()
  local pool, no_more

  before_each(function()
    no_more = helpers.watch()
    pool = open()
  end)

  after_each(function()
    pool:close()
    no_more()
  end)

  it("is the same memory on both sides", function()
    local buf = int_buffer()
    pool.call.fill(buf, 7):await()
    assert.equal(7, buf:get(9))
    buf:set(3, 8)
    assert.equal(8, pool.call.get(buf, 3):await())
    buf:close()
  end)

  it("comes home as the handle that it was", function()
    local buf = int_buffer()
    assert.is_true(rawequal(buf, pool.call.echo(buf):await()))
    local list = pool.call.echo({ buf, { buf } }):await()
    assert.is_true(rawequal(buf, list[1]) and rawequal(buf, list[2][1]))
    buf:close()
  end)

  it("is one handle there, however often it comes", function()
    local buf = int_buffer()
    pool.call.keep(buf):await()
    assert.is_true(pool.call.is_kept(buf):await())
    pool.call.drop():await()
    pool.call.keep(buf):await()
    assert.is_true(pool.call.is_kept(buf):await())
    buf:close()
  end)

  it("has slices, which go, come and are kept as what they are", function()
    local buf = int_buffer(100)
    local part = buf:slice(40, 20)
    pool.call.fill(part, 5):await()
    assert.same({ 0, 5, 5, 0 }, { buf:get(39), buf:get(40), buf:get(59), buf:get(60) })
    local back = pool.call.echo(part):await()
    assert.equal(20, #back)
    back:set(0, 6)
    assert.equal(6, buf:get(40))
    pool.call.keep(part):await()
    local whole, half = pool.call.echo(buf, buf:slice(0)):await()
    assert.is_true(rawequal(buf, whole))
    assert.is_false(rawequal(buf, half))
    assert.equal(100, #half)
    buf:close()
    part:close()
    assert.equal(6, pool.call.kept():await():get(0))
    assert.equal(0, #pool.call.echo(back:slice(20)):await())
  end)

  it("may be moved there, and home", function()
    local buf = int_buffer()
    pool.call.keep(treadle.move(buf:set(0, 3) or buf)):await()
    assert.is_false((pcall(buf.get, buf, 0)))
    local back = pool.call.give_away():await()
    assert.equal(3, back:get(0))
    assert.is_false((pool.call.look():await()))
    back:close()
  end)

  it("may be one that the process has made", function()
    local buf = pool.call.new(50, 9, true):await()
    assert.equal(9, buf:get(49))
    buf:set(49, 10)
    assert.equal(10, pool.call.kept():await():get(49))
    assert.is_true(rawequal(buf, pool.call.kept():await()))
    assert.is_true(pool.call.is_kept(buf):await())
    pool.call.drop():await()
    assert.equal(10, pool.call.get(buf, 49):await())
    buf:close()
  end)

  it("outlives the process that has made it", function()
    local buf = pool.call.new(50, 9):await()
    pool:close()
    assert.equal(9, buf:get(49))
    pool = open()
    assert.equal(9, pool.call.get(buf, 0):await())
    assert.is_true(rawequal(buf, pool.call.echo(buf):await()))
    buf:close()
  end)

  it("goes on from one process to another", function()
    local other = open()
    local buf = pool.call.new(50, 9, true):await()
    other.call.fill(buf, 11):await()
    assert.equal(11, pool.call.kept():await():get(49))
    assert.is_true(rawequal(buf, other.call.echo(buf):await()))
    buf:close()
    other:close()
  end)

  it("may be in the data of a pool, for each of its workers", function()
    local buf = int_buffer()
    local own = open { threads = 2, data = { buf = buf, part = buf:slice(5) } }
    for _, worker in ipairs { 1, 2 } do
      local data = own:run("data", {}, { worker = worker }):await()
      assert.is_true(rawequal(buf, data.buf))
      data.part:set(0, worker)
      assert.equal(worker, buf:get(5))
    end
    own:recycle()
    assert.equal(2, own:run("get", { buf, 5 }):await())
    assert.is_true(rawequal(buf, own.call.data():await().buf))
    own:close()
    buf:close()
  end)

  it("comes with an error", function()
    local buf = int_buffer()
    local fut = pool.call.fail_with(buf)
    local ok, err = pcall(fut.await, fut)
    assert.is_false(ok)
    assert.is_true(rawequal(buf, (err.value or err.message).buf))
    buf:close()
  end)

  it("is gone when the last handle on either side is", function()
    local one = helpers.descriptors()
    for round = 1, 300 do
      local buf = int_buffer()
      pool.call.keep(buf, buf:slice(round % 10)):await()
      if round % 2 == 0 then
        pool.call.kept():await()
      end
      buf:close()
    end
    pool.call.drop():await()
    helpers.eventually(function()
      collectgarbage()
      treadle.poll()
      return helpers.descriptors() <= one
    end, "descriptors are left")
  end)

  it("is gone in its maker when its host has let go of it", function()
    local count = pool:run(function()
      local n = 0
      for name in require("lfs").dir "/proc/self/fd" do
        n = n + (name:match "^%d+$" and 1 or 0)
      end
      return n
    end)
    local before = count:await()
    for round = 1, 300 do
      local buf = pool.call.new(10, round):await()
      assert.equal(round, buf:get(0))
      if round % 2 == 0 then
        assert.equal(round, pool.call.get(buf, 9):await())
      end
      buf:close()
    end
    pool.call.drop():await()
    helpers.eventually(function()
      return pool:run(function()
        collectgarbage()
        local n = 0
        for name in require("lfs").dir "/proc/self/fd" do
          n = n + (name:match "^%d+$" and 1 or 0)
        end
        return n
      end):await() <= before
    end, "descriptors are left in the worker")
  end)

  it("goes with garbage that nobody collects, as often as one likes", function()
    for round = 1, 1500 do
      local buf = int_buffer(1)
      buf:set(0, round)
      assert.equal(round, pool.call.echo(buf, buf:get(0)) and buf:get(0))
      assert.equal(round, pool.call.get(buf, 0):await())
      local made = pool.call.new(1, round):await()
      assert.equal(round, made:get(0))
    end
  end)

  it("is refused where a process has too many, and the others still come", function()
    local list = {}
    for i = 1, 513 do
      list[i] = int_buffer(1)
    end
    local fut = pool.call.echo(list)
    local ok, err = pcall(fut.await, fut)
    assert.is_false(ok)
    assert.equal("payload", err.kind)
    assert.matches("cannot have more buffers", tostring(err))
    list[513]:close()
    list[513] = nil
    local back = pool.call.echo(list):await()
    for i = 1, 512 do
      assert.is_true(rawequal(list[i], back[i]))
      list[i]:close()
    end
  end)

  it("is one memory for the atomics of all processes and the host", function()
    local other, buf = open(), int_buffer(1)
    local a, b = pool.call.add(buf, 100000), other.call.add(buf, 100000)
    for _ = 1, 100000 do
      atomics.add(buf, 0, 1)
    end
    a:await()
    b:await()
    assert.equal(300000, atomics.load(buf, 0))
    other:close()
    buf:close()
  end)

  it("is the host's still when its worker dies, and the next one's", function()
    local buf = int_buffer():fill(4)
    pool.call.keep(buf):await()
    local fut = pool.call.crash(buf)
    local ok, err = pcall(fut.await, fut)
    assert.is_false(ok)
    assert.equal("crashed", err.kind)
    assert.equal(4, buf:get(0))
    pool.call.fill(buf, 5):await()
    assert.equal(5, buf:get(0))
    buf:close()
  end)

  it("gives plain numbers, whatever bits another process writes", function()
    local forged = { { 0xfffa0000, 0x1000 }, { 0xffffffff, 0xffffffff }, { 0x7ff00000, 1 } }
    for _, name in ipairs { "double", "float", "crossing_pair", "crossing_cells" } do
      local buf = treadle.buffer(name, 4, PROCESS)
      for _, bits in ipairs(forged) do
        pool.call.forge(buf:slice(0), bits[1], bits[2]):await()
        local own = treadle.buffer(name, 4):copy_from(buf)
        for i = 0, 3 do
          for _, x in ipairs { buf:get(i), own:get(i) } do
            x = name == "crossing_pair" and x.b or x
            x = name == "crossing_cells" and x.cells[1].number or x
            assert.equal("number", type(x))
            assert.is_true(x ~= x or name == "float")
          end
        end
      end
      pool.call.forge(buf:slice(0), 0x3ff80000, 0x3ff80000):await()
      if name == "double" then
        assert.is_true(buf:get(3) > 1.5 and buf:get(3) < 1.51)
      elseif name == "float" then
        assert.equal(1.9375, buf:get(3))
      end
      buf:close()
    end
  end)

  it("ends the worker that says of one what cannot be, and nothing else", function()
    local GIVE, FORGET, GONE = 7, 8, 9
    local buf = int_buffer():fill(3)
    for _, message in ipairs {
      { GIVE, 0x80000000, 0x10000 }, { FORGET, 0, 0x10000 }, { FORGET, 0, 0x770000 },
      { GONE, 0x80000000, 0x10000 }, { 99, 0, 0 },
    } do
      pool.call.keep(buf, pool.call.new(5, 1):await()):await()
      local fut = pool.call.say(unpack(message))
      local ok, err = pcall(fut.await, fut)
      assert.is_false(ok)
      assert.equal("crashed", err.kind)
      assert.matches("was killed: it has written nonsense", tostring(err), 1, true)
      assert.equal(3, pool.call.get(buf, 9):await())
    end
    buf:close()
  end)

  it("of a call that is cancelled or too late leaves nothing behind", function()
    local futs = {}
    for i = 1, 200 do
      local buf = int_buffer()
      futs[i] = pool:run("new", { 10, i }, i % 2 == 0 and { timeout = 0 } or {})
      futs[i + 200] = pool:run("echo", { buf }, i % 3 == 0 and { timeout = 0 } or {})
      if i % 5 == 0 then
        futs[i]:cancel()
        futs[i + 200]:cancel()
      end
      buf:close()
    end
    for i = 1, 400 do
      pcall(futs[i].await, futs[i])
    end
    assert.equal(1, pool.call.echo(1):await())
  end)
end)
