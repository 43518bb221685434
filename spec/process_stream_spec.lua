--- What tasks emit, where their workers are processes, and threads beside them: both do the same.
local helpers = require "helpers"
local treadle = require "treadle"
require "treadle.channel"

local BUFFER = require("treadle.core").STREAM_BUFFER

local POOL = {
  process = { threads = 1, runtime = "process", permissions = "unrestricted" },
  thread = { threads = 1 },
}

local function drain(next_value)
  local list = {}
  local ok, err = pcall(function()
    for value in next_value do
      list[#list + 1] = value
    end
  end)
  return list, not ok and err or nil
end

for _, runtime in ipairs { "thread", "process" } do
  describe("a stream out of a " .. runtime, function()
    local pool

    before_each(function()
      pool = treadle.pool("emit_tasks", POOL[runtime])
    end)

    after_each(function()
      pool:terminate()
      pool:close()
    end)

    teardown(helpers.clean)

    for _, n in ipairs { 0, 1, BUFFER, BUFFER + 1, 20 * BUFFER } do
      it(("brings %d values, in order, and its end"):format(n), function()
        local f = pool.call.count(n)
        local last = 0
        for i in f:stream() do
          assert.equal(last + 1, i)
          last = i
        end
        assert.equal(n, last)
        assert.equal(n, f:await())
      end)
    end

    it("makes its task wait when nobody takes more", function()
      local path = helpers.new_path()
      local f = pool.call.write(path, 3 * BUFFER)
      local next_value = f:stream()
      helpers.poll_until(function() return helpers.read(path) ~= "" end)
      assert.equal(tostring(BUFFER), helpers.read(path))
      assert.equal(3 * BUFFER, #(drain(next_value)))
      assert.equal(3 * BUFFER, f:await())
    end)

    it("lets it go on for each value that is taken", function()
      local f = pool.call.count(BUFFER + 10)
      local next_value = f:stream()
      for i = 1, 10 do
        assert.equal(i, next_value())
      end
      assert.equal(BUFFER + 10, f:await())
      assert.equal(BUFFER, #(drain(next_value)))
    end)

    it("is dropped when it is full and nobody has asked", function()
      local f = pool.call.count(BUFFER + 1)
      assert.equal(BUFFER, f:await())
      local ok, message = pcall(f.stream, f)
      assert.is_false(ok)
      assert.matches("were dropped", message, 1, true)
    end)

    it("is kept while it has never been full", function()
      local f = pool.call.count(BUFFER)
      f:await()
      assert.equal(BUFFER, #(drain(f:stream())))
    end)

    it("tells its task that its loop was left", function()
      local f = pool.call.count(1e6)
      for i in f:stream() do
        if i == 5 then
          break
        end
      end
      assert.is_true(f:await() < 1e6)
    end)

    it("ends with its call, when that is cancelled", function()
      local f = pool.call.count(1e9)
      local next_value = f:stream()
      assert.equal(1, next_value())
      f:cancel("enough")
      local _, err = drain(next_value)
      assert.equal("enough", err.message)
      assert.equal(1, pool.call.count(1):await())
    end)

    it("brings each kind of value", function()
      local values = { 1, -0.5, "text", ("long "):rep(1e5), "", true, false, { 1, { x = 2 } } }
      assert.same(values, (drain(pool.call.give(unpack(values)):stream())))
    end)

    it("brings buffers", function()
      local f = pool.call.buffer(100)
      for buf, n in f:stream() do
        assert.equal(100, n)
        assert.equal(99, buf:get(99))
      end
    end)
  end)
end

describe("a stream out of a process", function()
  local pool

  after_each(function()
    pool:terminate()
    pool:close()
  end)

  it("that dies brings what came before", function()
    pool = treadle.pool("emit_tasks", POOL.process)
    local list, err = drain(pool.call.die(10):stream())
    assert.equal(10, #list)
    assert.equal("crashed", err.kind)
    assert.equal(1, pool.call.count(1):await())
  end)

  it("that is confined brings no code", function()
    pool = treadle.pool("emit_tasks", { threads = 1, runtime = "process" })
    local list, err = drain(pool.call.code():stream())
    assert.same({}, list)
    assert.matches("sends no functions", tostring(err), 1, true)
  end)

  it("is not to be had of a call on its own pool", function()
    pool = treadle.pool("emit_tasks", POOL.process)
    local ok, err = pool.call.stream_below():pawait()
    assert.is_false(ok)
    assert.matches('not to be had in a worker with runtime = "process"', err.message, 1, true)
  end)
end)
