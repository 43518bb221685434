--- Several futures as one: all, any, race, all_settled, as_completed.
local helpers = require "helpers"
local treadle = require "treadle"

describe("combining futures:", function()
  local done, pool

  setup(function()
    done = helpers.watch()
    pool = treadle.pool("tasks", { threads = 2, concurrency = 100 })
  end)

  teardown(helpers.clean)

  local function hold(gate, text)
    return pool.call.hold(gate, text)
  end

  describe("all", function()
    it("keeps the keys, and each one's first result", function()
      assert.same({ 3, 7, x = 1 }, treadle.all {
        pool.call.add(1, 2), pool.call.add(3, 4), x = pool.call.echo(1, 2, 3) }:await())
    end)

    it("keeps holes, nils and false", function()
      assert.same({ [1] = 1, [5] = false }, treadle.all {
        [1] = pool.call.echo(1), [3] = pool.call.echo(nil), [4] = pool.call.echo(),
        [5] = pool.call.echo(false) }:await())
    end)

    it("of an empty list resolves to an empty table", function()
      assert.same({}, treadle.all({}):await())
      assert.equal("resolved", treadle.all({}):state())
    end)

    it("rejects at the first rejection, while others are pending", function()
      local pending = treadle.future()
      local ok, err = treadle.all { pending, pool.call.boom("x") }:pawait()
      assert.same({ false, "task" }, { ok, err.kind })
      assert.equal("pending", pending:state())
      ok, err = treadle.all { pending, treadle.rejected("at once") }:pawait()
      assert.same({ false, "at once" }, { ok, err })
    end)

    it("mixes settled and pending ones of every kind", function()
      local f, resolve = treadle.future()
      local all = treadle.all { f, treadle.resolved(2), pool.call.echo(3),
        treadle.spawn(function() treadle.sleep(0.001) return 4 end),
        pool.call.echo(4):and_then(function(v) return v + 1 end) }
      resolve(1)
      assert.same({ 1, 2, 3, 4, 5 }, all:await())
    end)

    it("may hold the same future twice", function()
      local f = pool.call.add(1, 2)
      assert.same({ 3, 3 }, treadle.all { f, f }:await())
    end)

    it("does not take a future away from others who wait for it", function()
      local f = pool.call.add(1, 2)
      local a, b = treadle.all { f }, treadle.all { f, f }
      local c = f:and_then(function(v) return v end)
      assert.same({ 3 }, a:await())
      assert.same({ 3, 3 }, b:await())
      assert.equal(3, c:await())
      assert.equal(3, f:await())
    end)

    it("when it is cancelled cancels them all", function()
      local gate = helpers.new_path()
      local list = { hold(gate), hold(gate) }
      local all = treadle.all(list)
      all:cancel("enough")
      assert.same({ "cancelled", "cancelled" }, { list[1]:state(), list[2]:state() })
      assert.equal("cancelled", all:state())
      helpers.write(gate, "open")
    end)

    it("joins 10,000 calls", function()
      local list = {}
      for i = 1, 10000 do
        list[i] = pool.call.echo(i)
      end
      local values = treadle.all(list):await()
      assert.equal(10000, #values)
      for i = 1, 10000 do
        assert(values[i] == i)
      end
    end)

    it("may be nested", function()
      assert.same({ { 1 }, { 2 } }, treadle.all {
        treadle.all { pool.call.echo(1) }, treadle.all { pool.call.echo(2) } }:await())
    end)

    it("takes cancelled ones for failed", function()
      local f = treadle.future()
      local all = treadle.all { f }
      f:cancel()
      assert.equal("cancelled", select(2, all:pawait()).kind)
      assert.equal("cancelled", select(2, treadle.all({ f }):pawait()).kind)
    end)
  end)

  describe("any", function()
    it("gives the first result, rejections or not", function()
      local gate = helpers.new_path()
      local slow = hold(gate, "slow")
      assert.equal("fast",
        treadle.any { slow, treadle.rejected("x"), pool.call.echo("fast") }:await())
      helpers.write(gate, "open")
      assert.equal("slow", slow:await())
    end)

    it("rejects when all are rejected", function()
      local ok, err = treadle.any { pool.call.boom("a"), pool.call.boom("b") }:pawait()
      assert.same({ false, "task" }, { ok, err.kind })
    end)

    it("of an empty list is rejected", function()
      assert.is_false((treadle.any({}):pawait()))
    end)
  end)

  describe("race", function()
    it("gives the first outcome, be it a result or an error", function()
      local pending = treadle.future()
      assert.equal(1, treadle.race { pending, pool.call.echo(1) }:await())
      local ok, err = treadle.race { pending, pool.call.boom("x") }:pawait()
      assert.same({ false, "task" }, { ok, err.kind })
    end)

    it("prefers what is settled already", function()
      local gate = helpers.new_path()
      local slow = hold(gate)
      assert.equal("now", treadle.race { slow, treadle.resolved("now") }:await())
      helpers.write(gate, "open")
    end)

    it("of an empty list stays pending", function()
      assert.equal("pending", treadle.race({}):state())
    end)
  end)

  describe("all_settled", function()
    it("gives every outcome under its key, and never rejects", function()
      local cancelled = treadle.future()
      cancelled:cancel()
      local outcomes = treadle.all_settled {
        pool.call.echo(1, 2), x = pool.call.boom("x"), y = cancelled, z = pool.call.echo(nil),
      }:await()
      assert.same({ ok = true, value = 1 }, outcomes[1])
      assert.is_false(outcomes.x.ok)
      assert.equal("task", outcomes.x.error.kind)
      assert.is_false(outcomes.y.ok)
      assert.equal("cancelled", outcomes.y.error.kind)
      assert.same({ ok = true }, outcomes.z)
    end)

    it("of an empty list resolves to an empty table", function()
      assert.same({}, treadle.all_settled({}):await())
    end)
  end)

  describe("as_completed", function()
    it("gives keys and futures in the order in which they are settled", function()
      local gates, list, keys = {}, {}, {}
      for i = 1, 4 do
        gates[i] = helpers.new_path()
        list[i] = hold(gates[i], i)
      end
      local order = { 3, 1, 4, 2 }
      helpers.write(gates[order[1]], "open")
      for key, f in treadle.as_completed(list) do
        keys[#keys + 1] = key
        assert.equal(list[key], f)
        assert.equal(key, f:await())
        if order[#keys + 1] then
          helpers.write(gates[order[#keys + 1]], "open")
        end
      end
      assert.same(order, keys)
    end)

    it("gives the rejected ones, too", function()
      local seen = {}
      for key, f in treadle.as_completed { a = pool.call.echo(1), b = pool.call.boom("x") } do
        seen[key] = f:pawait()
      end
      assert.same({ a = true, b = false }, seen)
    end)

    it("gives those that were settled before", function()
      local n = 0
      for _, f in treadle.as_completed { treadle.resolved(1), treadle.resolved(2) } do
        n = n + f:await()
      end
      assert.equal(3, n)
    end)

    it("of an empty list gives nothing", function()
      for _ in treadle.as_completed {} do
        error("something came")
      end
    end)

    it("yields in a coroutine", function()
      local other
      local f = treadle.spawn(function()
        local n = 0
        for _, g in treadle.as_completed { pool.call.sleep(0.001), pool.call.sleep(0) } do
          n = n + 1
          g:await()
        end
        return n
      end)
      other = treadle.spawn(function() return "meanwhile" end):await()
      assert.equal("meanwhile", other)
      assert.equal(2, f:await())
    end)
  end)

  it("works in tasks, on their own pool and with one thread", function()
    local single = treadle.pool("tasks", { threads = 1 })
    local results = single:run(function()
      local t = require "treadle"
      local call = t.worker.pool.call
      local out = {}
      out[1] = t.all { call.echo(1), call.echo(2) }:await()[2]
      out[2] = t.any { call.boom("x"), call.echo(3) }:await()
      out[3] = t.race { call.echo(4) }:await()
      out[4] = t.all_settled { call.echo(5) }:await()[1].value
      local n = 0
      for _, f in t.as_completed { call.echo(1), call.echo(2) } do
        n = n + f:await()
      end
      out[5] = n
      return out
    end):await()
    assert.same({ 2, 3, 4, 5, 3 }, results)
    single:close(helpers.TIMEOUT)
  end)

  it("misuse is told at the caller's line", function()
    for _, name in ipairs { "all", "any", "race", "all_settled", "as_completed" } do
      local fn, f = treadle[name], treadle.resolved(1)
      assert.equal(("bad argument #1 to '%s' (table expected, got nil)"):format(name),
        helpers.error_here(function() fn() end))
      assert.matches("list of futures expected, got one future",
        helpers.error_here(function() fn(f) end), 1, true)
      assert.matches("list of futures expected, but [1] is a number",
        helpers.error_here(function() fn({ 1 }) end), 1, true)
      assert.matches("list of futures expected, but [x] is a function",
        helpers.error_here(function() fn({ f, x = print }) end), 1, true)
    end
  end)

  it("leaves no thread and no descriptor", function()
    pool:close(helpers.TIMEOUT)
    done()
  end)
end)
