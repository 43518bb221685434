--- How parallel loops end that do not end well.
local helpers = require "helpers"
local plain = require "loop_helpers"
local treadle = require "treadle"

local range, in_worker = plain.range, plain.in_worker

describe("parallel loops:", function()
  local pool

  setup(function() pool = treadle.pool("parallel_tasks", { threads = 2 }) end)
  teardown(function()
    pool:close()
    helpers.clean()
  end)

  describe("an error", function()
    it("names the index, and brings what was raised", function()
      local ok, err = treadle.pmap(function(x)
        if x == 7 then
          error({ code = x })
        end
        return in_worker(x)
      end, range(20), { chunk = 5 }):pawait()
      assert.is_false(ok)
      assert.equal("task", err.kind)
      assert.equal(7, err.index)
      assert.same({ code = 7 }, err.value)
      assert.matches("at index 7", tostring(err))
      assert.is_number(err.worker)
    end)

    it("is the same where the loop runs here", function()
      local f = treadle.pmap(function(x) return x + 1 end, { 1, 2, "three", 4 })
      local ok, err = f:pawait()
      assert.is_false(ok)
      assert.equal("task", err.kind)
      assert.equal(3, err.index)
      assert.matches("arithmetic", err.message)
      assert.matches("parallel_ends_spec.lua", err.traceback)
    end)

    it("names the index of a range, of a record, and of a reduction", function()
      local _, err = treadle.pfor(-5, 5, function(i) in_worker(i) assert(i ~= 2, "two") end)
        :pawait()
      assert.equal(2, err.index)
      _, err = treadle.pmap(function(r) assert(in_worker(r) ~= "cd", "cd") end, "abcdef",
        { record = 2 }):pawait()
      assert.equal(2, err.index)
      _, err = treadle.preduce(function(a, b)
        assert(in_worker(b) ~= 60, "sixty")
        return a + b
      end, 0, range(100)):pawait()
      assert.equal(60, err.index)
    end)

    it("of the last folding names the first index of what it was given", function()
      local ok, err = treadle.preduce(function(a, b) -- leaves of 10 make 55, 155, ...
        if in_worker(a) == 55 and b == 155 then
          error("both", 0)
        end
        return a + b
      end, 0, range(100), { chunk = 10 }):pawait()
      assert.is_false(ok)
      assert.equal("task", err.kind)
      assert.matches("^both", err.message)
      assert.equal(11, err.index)
    end)

    it("whose value cannot travel is told by its text", function()
      local _, err = treadle.pmap(function(x)
        in_worker(x)
        error(coroutine.create(print))
      end, { 1 }):pawait()
      assert.matches("^thread", err.message)
      assert.is_nil(err.value)
    end)

    it("cancels the rest", function()
      local own = treadle.pool("parallel_tasks", { threads = 2, concurrency = 4 }) -- all may wait
      local e = treadle.event()
      local f = treadle.pmap(function(x)
        in_worker(x)
        if x == 1 then
          error("the first", 0)
        end
        e:wait() -- raises when it is cancelled
      end, range(100), { pool = own })
      local ok, err = f:pawait()
      assert.is_false(ok)
      assert.equal(1, err.index)
      own:drained():await()
      own:close()
    end)

    it("names the indices that were lost with a worker #computing", function()
      local own = treadle.pool("parallel_tasks", { threads = 1, terminate_timeout = 0.05 })
      local begun = treadle.event()
      local f = treadle.pmap(function(x)
        in_worker(x)
        begun:set()
        while true do end -- luacheck: ignore
      end, { 1, 2, 3 }, { pool = own, chunk = 3 })
      assert.is_true(begun:wait(helpers.TIMEOUT))
      own:recycle()
      local _, err = f:pawait()
      assert.equal("crashed", err.kind)
      assert.matches("indices 1 to 3", err.message)
      own:close()
    end)

    it("of progress rejects the loop, wherever that runs", function()
      for _, fn in ipairs { in_worker, math.abs } do
        local ok, err = treadle.pmap(fn, range(50), { progress = function()
          error("no progress", 0)
        end }):pawait()
        assert.is_false(ok)
        assert.equal("no progress", err.message)
      end
    end)
  end)

  describe("stopping:", function()
    it("cancelling one cancels what is under way", function()
      local e = treadle.event()
      local f = treadle.pmap(function(x)
        e:wait()
        return in_worker(x)
      end, range(100), { pool = pool })
      assert.is_false(f:wait(0.02))
      assert.is_true(f:cancel("enough"))
      local ok, err = f:pawait()
      assert.is_false(ok)
      assert.equal("cancelled", err.kind)
      assert.equal("enough", err.message)
      pool:drained():await()
      assert.same({ 2 }, pool:map("double", { 1 }):await())
    end)

    it("cancelling ends a computing loop between two items", function()
      local f = treadle.pfor(1, 1e12, function(i) return in_worker(i) end, { pool = pool })
      assert.is_false(f:wait(0.02))
      f:cancel()
      pool:drained():await()
    end)

    it("force ends an endless item #computing", function()
      local f = treadle.pmap(function(x)
        while true do x = x + 1 end
      end, { 1, 2, 3 }, { pool = pool })
      assert.is_false(f:wait(0.02))
      f:cancel { force = true }
      assert.same({ 2, 4 }, pool:map("double", { 1, 2 }):await())
    end)

    it("a timeout ends an endless item #computing", function()
      local f = treadle.pmap(function(x)
        while true do x = x + 1 end
      end, { 1, 2, 3 }, { pool = pool, timeout = 0.05 })
      local ok, err = f:pawait()
      assert.is_false(ok)
      assert.equal("timeout", err.kind)
      assert.equal("the loop has not ended within 0.05 s", err.message)
      assert.same({ 2, 4 }, pool:map("double", { 1, 2 }):await())
    end)

    it("a timeout ends all endless items, also those that began later #computing", function()
      for _ = 1, 5 do
        local f = treadle.pmap(function(x)
          while true do x = x + 1 end
        end, range(10), { pool = pool, timeout = 0.03 })
        assert.is_false((f:pawait()))
        pool:drained():await()
        assert.same({ true, true }, pool:broadcast("idle"):await())
      end
    end)

    it("a worker that is kept by another job keeps no part back", function()
      local own = treadle.pool("parallel_tasks", { threads = 2 })
      local e = treadle.event()
      local busy = own:run(function() e:wait() end, {}, { worker = 1 })
      assert.same(range(100), treadle.pmap(in_worker, range(100), { pool = own, chunk = 1 })
        :await())
      e:set()
      busy:await()
      own:close()
    end)

    it("a signal cancels it", function()
      local a = treadle.abort()
      local e = treadle.event()
      local f = treadle.pmap(function(x) e:wait() return in_worker(x) end, range(4),
        { signal = a })
      assert.is_false(f:wait(0.01))
      a:abort("late")
      local _, err = f:pawait()
      assert.equal("late", err.message)
      assert.equal("cancelled", treadle.pmap(in_worker, { 1 }, { signal = a }):state())
      assert.equal("cancelled", treadle.psort({ 1 }, nil, { signal = a }):state())
    end)

    it("a pool that is terminated rejects it, one that is closed refuses it", function()
      local own = treadle.pool("parallel_tasks", { threads = 1 })
      local e = treadle.event()
      local f = treadle.pmap(function(x) e:wait() return in_worker(x) end, range(4), { pool = own })
      assert.is_false(f:wait(0.01))
      own:terminate()
      local _, err = f:pawait()
      assert.equal("closed", err.kind)
      own:close()
      for _, fn in ipairs { in_worker, math.abs } do
        _, err = treadle.pmap(fn, { 1 }, { pool = own }):pawait()
        assert.equal("closed", err.kind)
      end
      _, err = treadle.psort({ 2, 1 }, nil, { pool = own }):pawait()
      assert.equal("closed", err.kind)
    end)

    it("a task that is cancelled takes its loop along", function()
      local e = treadle.event()
      local f = pool:run(function()
        local t = require "treadle"
        t.pmap(function() e:wait() end, { 1, 2, 3 }):await()
      end)
      assert.is_false(f:wait(0.02))
      f:cancel()
      pool:drained():await()
    end)
  end)
end)
