local helpers = require "helpers"
local treadle = require "treadle"

local function range(n)
  local list = {}
  for i = 1, n do
    list[i] = i
  end
  return list
end

--- Something that only workers do: a function that calls `require` never runs here.
local function in_worker(x)
  assert(not require("treadle").is_main)
  return x
end

--- Call `fn` while the first looks at the clock find it so much later each time, and then a second.
local function with_clock(step, fn)
  local core = require "treadle.core"
  local now, time, looks = core.now, 0, 0
  core.now = function()
    looks = looks + 1
    time = time + (looks <= 3 and step or math.min(step, 1))
    return time
  end
  local ok, value = pcall(fn)
  core.now = now
  return assert(ok and value, value)
end

describe("parallel loops:", function()
  local pool

  setup(function() pool = treadle.pool("parallel_tasks", { threads = 2 }) end)
  teardown(function()
    pool:close()
    helpers.clean()
  end)

  describe("treadle.pmap", function()
    it("keeps order and length, in workers and here", function()
      for _, n in ipairs { 0, 1, 2, 3, 10, 1000 } do
        local list = treadle.pmap(function(x) return in_worker(x) * 2 end, range(n)):await()
        assert.equal(n, #list)
        local same = treadle.pmap(function(x) return x * 2 end, range(n)):await()
        assert.same(same, list)
        for i = 1, n do
          assert.equal(2 * i, list[i])
        end
      end
    end)

    it("resolves at once where the loop is too cheap to gain", function()
      local f = with_clock(0, function()
        return treadle.pmap(function(x) return x + 1 end, range(1000))
      end)
      assert.equal("resolved", f:state())
      assert.equal(1001, f:await()[1000])
    end)

    it("leaves what is costly to the workers, where it pays", function()
      for _, source in ipairs { "pmap", "pfilter", "preduce", "pfor" } do
        local done = pool:stats().done
        local f = with_clock(1000, function() -- items are slow, and their way is not
          local list, options = range(2000), { pool = pool, chunk = 100 }
          if source == "pfor" then
            return treadle.pfor(1, 2000, function(x) return x end, options)
          elseif source == "preduce" then
            return treadle.preduce(function(a, b) return a + b end, 1, list, options)
          end
          return treadle[source](function(x) return x end, list, options)
        end)
        assert.equal("pending", f:state())
        local value = f:await()
        assert.is_true(pool:stats().done > done)
        if source == "preduce" then
          assert.equal(2001001, value)
        elseif source ~= "pfor" then
          assert.same(range(2000), value)
        end
      end
    end)

    it("honours n, and tells it where # cannot", function()
      local list = treadle.pmap(function(x) return in_worker(x) end, { 1, nil, 3, nil, n = 4 })
        :await()
      assert.same({ 1, nil, 3, nil, n = 4 }, list)
      list = treadle.pmap(function(x) return x end, { 1, nil, 3, nil, n = 4 }):await()
      assert.same({ 1, nil, 3, nil, n = 4 }, list)
      list = treadle.pmap(function(x) return in_worker(x) ~= 2 and x or nil end, { 1, 2 }):await()
      assert.same({ 1, n = 2 }, list)
      list = treadle.pmap(function(x) return x ~= 2 and x or nil end, { 1, 2 }):await()
      assert.same({ 1, n = 2 }, list)
      assert.is_nil(treadle.pmap(in_worker, { 1, 2 }):await().n)
    end)

    it("runs a task by its name", function()
      assert.same({ 2, 4, 6 }, treadle.pmap("double", { 1, 2, 3 }, { pool = pool }):await())
      assert.same({ 2, 4, 6 }, pool:map("double", { 1, 2, 3 }):await())
      assert.same({ 3, 6 }, pool:map(function(x) return in_worker(x) * 3 end, { 1, 2 }):await())
    end)

    it("calls a task that has a timeout item by item", function()
      assert.same({ 1, 2, "late", 4 }, pool:map("slow", { 1, 2, 3, 4 }):await())
    end)

    it("takes what an iterator gives, a bounded number ahead", function()
      local given, most, done = 0, 0, 0
      local list = treadle.pmap(function(x) return in_worker(x) + 1 end, function()
        most = math.max(most, given - done)
        if given < 5000 then
          given = given + 1
          return given
        end
      end, { concurrency = 2, progress = function(d) done = d end }):await()
      assert.equal(5000, #list)
      for i = 1, 5000 do
        assert.equal(i + 1, list[i])
      end
      assert.is_true(most <= 2 * 256 + 256)
    end)

    it("takes an iterator that waits", function()
      local i = 0
      local list = treadle.pmap(in_worker, function()
        treadle.sleep(0.001)
        i = i + 1
        return i <= 5 and i or nil
      end):await()
      assert.same({ 1, 2, 3, 4, 5 }, list)
    end)

    it("takes a shared list as a plain one, in each kind of loop", function()
      local rows = {}
      for i = 1, 300 do
        rows[i] = { key = 300 - i }
      end
      rows = treadle.shared(rows)
      local function key(row) return require("treadle") and row.key end
      local keys = treadle.pmap(key, rows):await()
      assert.same({ 300, 299, 0 }, { #keys, keys[1], keys[300] })
      local kept = treadle.pfilter(function(row) return key(row) > 297 end, rows):await()
      assert.same({ rows[1], rows[2] }, kept)
      assert.equal(44850, treadle.preduce(function(a, b) return a + b end, 0,
        treadle.shared(keys)):await())
      local sorted = treadle.psort(rows, function(a, b) return a.key < b.key end):await()
      assert.equal(rows[300], sorted[1])
      assert.same({ 2, 4 }, pool:map("double", treadle.shared { 1, 2 }):await())
      assert.equal(299, rows[1].key)
    end)

    it("gives up when the iterator fails", function()
      local ok, err = treadle.pmap(in_worker, function() error("no more", 0) end):pawait()
      assert.is_false(ok)
      assert.equal("no more", err.message)
    end)

    it("cuts a string into records", function()
      assert.same({ "AB", "CD", "EF" },
        treadle.pmap(function(r) return in_worker(r):upper() end, "abcdef", { record = 2 }):await())
      assert.same({ "AB", "CD", "EF" },
        treadle.pmap(string.upper, "abcdef", { record = 2 }):await())
      assert.same({}, treadle.pmap(string.upper, "", { record = 2 }):await())
      assert.error_matches(function() treadle.pmap(string.upper, "abc", { record = 2 }) end,
        "3 bytes are no whole number of records of 2")
      assert.error_matches(function() treadle.pmap(string.upper, "abc") end,
        "a string needs the option 'record'")
    end)

    it("has chunks of the size that was asked for", function()
      local sizes = {}
      treadle.pmap(in_worker, range(10), { chunk = 4, progress = function(done)
        sizes[#sizes + 1] = done
      end }):await()
      table.sort(sizes)
      assert.equal(3, #sizes)
      assert.equal(10, sizes[3])
    end)

    it("tells how far it has come", function()
      local last, count = 0, 0
      treadle.pmap(in_worker, range(500), { progress = function(done, total)
        assert.is_true(done > last)
        assert.equal(500, total)
        last, count = done, count + 1
      end }):await()
      assert.equal(500, last)
      treadle.pmap(function(x) return x end, range(10), { progress = function(done, total)
        last = done / total
      end }):await()
      assert.equal(1, last)
    end)

    it("gives all results in any order when told so", function()
      local list = treadle.pmap(in_worker, range(300), { ordered = false }):await()
      table.sort(list)
      assert.same(range(300), list)
    end)

    it("has no more under way at once than it may", function()
      local e = treadle.event()
      local f = treadle.pmap(function(x)
        e:wait()
        return in_worker(x)
      end, range(8), { concurrency = 1, pool = pool })
      assert.is_false(f:wait(0.05))
      assert.equal(1, pool:stats().running + pool:stats().queued)
      e:set()
      assert.same(range(8), f:await())
    end)

    it("sends a large part in smaller ones", function()
      local small = treadle.pool("parallel_tasks", { threads = 1, max_payload = 4096 })
      local list = {}
      for i = 1, 64 do
        list[i] = ("%03d"):format(i):rep(200)
      end
      local got = treadle.pmap(function(s) return in_worker(s):sub(1, 3) end, list,
        { pool = small, chunk = 32 }):await()
      assert.equal(64, #got)
      assert.equal("064", got[64])
      small:close()
    end)

    it("goes through a pool whose queue is short", function()
      for _, how in ipairs { "reject", "wait", "run" } do
        local short = treadle.pool("parallel_tasks", {
          threads = 2, max_queue = 1, on_full = how,
        })
        local list = treadle.pmap(function(x)
          local t = require "treadle"
          return x + (t.worker and 0 or 0)
        end, range(100), { pool = short, chunk = 1, concurrency = 8 }):await()
        assert.same(range(100), list)
        short:close()
      end
    end)

    it("runs in the host, too, where a pool's jobs do", function()
      local helped = treadle.pool("parallel_tasks", { threads = 1, inline = true })
      local here = {}
      for i, where in ipairs(treadle.pmap(function()
        local t = require "treadle"
        local stop = t.now() + 0.001
        repeat until t.now() > stop
        return t.is_main
      end, range(60), { pool = helped, chunk = 1 }):await()) do
        here[i] = where
      end
      assert.equal(60, #here)
      local doubled = helped:map("double", range(500), { chunk = 1 }):await()
      for i = 1, 500 do
        assert.equal(2 * i, doubled[i])
      end
      helped:close()
    end)

    it("lets each state of a pool that isolates learn the function", function()
      local isolated = treadle.pool("parallel_tasks", { threads = 1, isolate = true })
      assert.same(range(20), treadle.pmap(in_worker, range(20), { pool = isolated, chunk = 1 })
        :await())
      isolated:close()
    end)
  end)

  describe("the function", function()
    it("travels once to each worker", function()
      local tasks = require "parallel_tasks"
      local before = pool:broadcast("arrivals"):await()
      local parcel = tasks.parcel(1)
      local list = treadle.pmap(function(x) return in_worker(x) + parcel.value end, range(2000),
        { pool = pool, chunk = 10 }):await()
      assert.equal(2001, list[2000])
      local after = pool:broadcast("arrivals"):await()
      for worker = 1, 2 do
        assert.is_true(after[worker] - before[worker] <= 1)
      end
    end)

    it("is sent again to a worker that was replaced meanwhile", function()
      local own = treadle.pool("parallel_tasks", { threads = 1 })
      local recycled
      local list = treadle.pmap(in_worker, range(50), { pool = own, chunk = 1, concurrency = 1,
        progress = function(done)
          if done == 10 then
            recycled = own:recycle()
            recycled:await()
          end
        end }):await()
      assert.same(range(50), list)
      own:close()
    end)

    it("is forgotten when the loop is over", function()
      treadle.pmap(in_worker, range(100), { pool = pool }):await()
      pool:drained():await()
      local kept = pool:broadcast(function()
        local body, n = require "treadle.body", 0
        for i = 1, 20 do
          local name, value = debug.getupvalue(body.forget, i)
          if name == "bodies" then
            for _ in pairs(value) do
              n = n + 1
            end
          end
        end
        return n
      end):await()
      assert.same({ 0, 0 }, kept)
    end)

    it("is refused at the call if it cannot travel", function()
      local co = coroutine.create(function() end)
      local text = helpers.error_here(function() treadle.pmap(function() return co end, {}) end)
      assert.matches("^bad argument #1 to 'pmap' %(cannot send a coroutine", text)
      assert.matches("'co'", text)
      text = helpers.error_here(function() treadle.pfor(1, 3, function() return co end) end)
      assert.matches("^bad argument #3 to 'pfor' %(cannot send a coroutine %(arguments%[3%]", text)
      text = helpers.error_here(function() treadle.preduce(math.max, co, {}) end)
      assert.matches("^bad argument #2 to 'preduce' %(cannot send a coroutine", text)
      text = helpers.error_here(function() treadle.psort({}, function() return co end) end)
      assert.matches("^bad argument #2 to 'psort' %(cannot send a coroutine", text)
    end)

    it("works on copies of its upvalues, wherever it runs", function()
      local cheap, seen = {}, {}
      treadle.pmap(function(x) cheap[x] = x return x end, range(10)):await()
      assert.same({}, cheap)
      treadle.pmap(function(x) seen[x] = in_worker(x) return x end, range(10)):await()
      assert.same({}, seen)
    end)

    it("runs here only if nobody can tell", function()
      local f = treadle.pmap(function() return require("treadle").is_main end, { 1, 2 })
      assert.same({ false, false }, f:await())
      _G.global_of_the_host = 1 -- luacheck: ignore
      assert.is_false((treadle.pmap(function(x)
        return x + global_of_the_host -- luacheck: ignore
      end, { 1 }):pawait()))
      _G.global_of_the_host = nil -- luacheck: ignore
    end)
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
      assert.matches("parallel_spec.lua", err.traceback)
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
      local f = treadle.pmap(function(x)
        in_worker(x)
        while true do end -- luacheck: ignore
      end, { 1, 2, 3 }, { pool = own, chunk = 3 })
      assert.is_false(f:wait(0.05))
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

  describe("treadle.preduce", function()
    it("counts init once, and folds in order", function()
      for _, n in ipairs { 0, 1, 2, 10, 1000 } do
        local want = { "<" }
        for i = 1, n do
          want[#want + 1] = i .. ","
        end
        local list = {}
        for i = 1, n do
          list[i] = i .. ","
        end
        want = table.concat(want)
        assert.equal(want, treadle.preduce(function(a, b) return in_worker(a) .. b end, "<", list)
          :await())
        assert.equal(want, treadle.preduce(function(a, b) return a .. b end, "<", list):await())
        assert.equal(want, treadle.preduce(function(a, b) return in_worker(a) .. b end, "<", list,
          { chunk = 7, concurrency = 3 }):await())
        local i = 0
        assert.equal(want, treadle.preduce(function(a, b) return in_worker(a) .. b end, "<",
          function()
            i = i + 1
            return list[i]
          end):await())
      end
    end)

    it("gives the same bits for the same input and chunk", function()
      math.randomseed(20261121)
      local list = {}
      for i = 1, 20000 do
        list[i] = (math.random() - 0.5) * 10 ^ math.random(-12, 12)
      end
      for _, chunk in ipairs { 1, 3, 100, 20000, 30000 } do
        local first = treadle.preduce(function(a, b) return a + b end, 0.1, list,
          { chunk = chunk }):await()
        for threads = 1, 3 do
          local own = treadle.pool("parallel_tasks", { threads = threads })
          local again = treadle.preduce(function(a, b)
            return a + in_worker(b)
          end, 0.1, list, { chunk = chunk, pool = own }):await()
          assert.equal(("%.17g"):format(first), ("%.17g"):format(again))
          own:close()
        end
      end
    end)

    it("runs a task by its name", function()
      assert.equal(55, pool:reduce("add", 0, range(10)):await())
      assert.equal(55, treadle.preduce("add", 0, range(10), { pool = pool }):await())
    end)
  end)

  describe("treadle.pfilter", function()
    it("keeps what the function is true for, in its order", function()
      for _, n in ipairs { 0, 1, 2, 1000 } do
        local want = {}
        for i = 1, n do
          want[#want + 1] = i % 3 == 0 and i or nil
        end
        assert.same(want, treadle.pfilter(function(x) return in_worker(x) % 3 == 0 end, range(n))
          :await())
        assert.same(want, treadle.pfilter(function(x) return x % 3 == 0 end, range(n)):await())
      end
    end)

    it("gives the items themselves", function()
      local list = { { 1 }, { 2 }, { 3 } }
      local kept = treadle.pfilter(function(t) return in_worker(t)[1] ~= 2 end, list):await()
      assert.equal(2, #kept)
      assert.is_true(rawequal(list[1], kept[1]) and rawequal(list[3], kept[2]))
    end)

    it("filters records and what an iterator gives", function()
      assert.same({ "ab", "ef" }, treadle.pfilter(function(r) return in_worker(r) ~= "cd" end,
        "abcdef", { record = 2 }):await())
      local i = 0
      assert.same({ 2, 4 }, treadle.pfilter(function(x) return in_worker(x) % 2 == 0 end, function()
        i = i + 1
        return i <= 5 and i or nil
      end):await())
    end)
  end)

  describe("treadle.pfor", function()
    it("includes both ends, and resolves to nothing", function()
      local e = treadle.event()
      assert.equal(0, select("#", treadle.pfor(1, 0, in_worker):await()))
      assert.equal(0, select("#", treadle.pfor(1, 10, in_worker):await()))
      assert.equal(0, select("#", treadle.pfor(1, 10, function(i) return i end):await()))
      treadle.pfor(-2, 7, function(i)
        in_worker(i)
        if i == 7 then
          e:set()
        end
      end):await()
      assert.is_true(e:is_set())
      assert.error_matches(function() treadle.pfor(1.5, 2, in_worker) end,
        "bad argument #1 to 'pfor' %(a whole number expected, got 1.5%)")
    end)
  end)

  describe("treadle.psort", function()
    local function is_sorted(list, lt)
      for i = 2, #list do
        if lt(list[i], list[i - 1]) then
          return false
        end
      end
      return true
    end

    it("gives a new sorted list", function()
      math.randomseed(4711)
      for _, n in ipairs { 0, 1, 2, 3, 100, 5000 } do
        local list = {}
        for i = 1, n do
          list[i] = math.random(1, 2 * n)
        end
        local before, want = { unpack(list) }, { unpack(list) }
        table.sort(want)
        assert.same(want, treadle.psort(list):await())
        assert.same(before, list)
        table.sort(want, function(a, b) return a > b end)
        assert.same(want, treadle.psort(list, function(a, b) return a > b end):await())
        assert.same(want, treadle.psort(list, function(a, b) return in_worker(a) > b end):await())
      end
    end)

    it("sorts strings, and is stable", function()
      local words, list = {}, {}
      for i = 1, 60000 do
        words[i] = ("%08x"):format((i * 2654435761) % 2 ^ 32)
        list[i] = { key = i * 7919 % 100, at = i }
      end
      local sorted = treadle.psort(words, nil, { pool = pool }):await()
      assert.equal(60000, #sorted)
      assert.is_true(is_sorted(sorted, function(a, b) return a < b end))
      sorted = treadle.psort(list, function(a, b) return in_worker(a).key < b.key end,
        { pool = pool }):await()
      assert.equal(60000, #sorted)
      assert.is_true(is_sorted(sorted, function(a, b)
        return a.key < b.key or a.key == b.key and a.at < b.at
      end))
      assert.is_true(rawequal(sorted[1], list[sorted[1].at]))
    end)

    it("rejects what cannot be compared", function()
      assert.is_false((treadle.psort({ 1, "two", 3 }):pawait()))
      assert.error_matches(function() treadle.psort({ 1, nil, 3, n = 3 }) end, "item 2 is nil")
    end)
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

    it("psort writes nowhere else, though the numbers change meanwhile", function()
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
      for _ = 1, 5 do
        assert.equal(buf, treadle.psort(buf, nil, { pool = pool }):await())
      end
      stop:set()
      f:await()
      for i = 0, n - 1 do
        assert.is_number(buf:get(i))
      end
    end)

    it("a psort that is cancelled leaves numbers", function()
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

  describe("loops within tasks", function()
    it("run on the task's own pool, with one thread, too", function()
      for threads = 1, 3 do
        local own = treadle.pool("parallel_tasks", { threads = threads })
        local squares = own.call.squares(50):await()
        assert.equal(2500, squares[50])
        assert.equal(3 ^ 4 * 2, own.call.nested(3, 3):await())
        own:close()
      end
    end)

    it("within loops do not deadlock", function()
      local own = treadle.pool("parallel_tasks", { threads = 2 })
      local rows = treadle.pmap(function(x)
        local t = require "treadle"
        local inner = t.pmap(function(y) return require("treadle").worker.id * 0 + x * y end,
          { 1, 2, 3, 4 })
        return inner:await()
      end, range(20), { pool = own }):await()
      for x = 1, 20 do
        assert.same({ x, 2 * x, 3 * x, 4 * x }, rows[x])
      end
      own:close()
    end)
  end)

  it("any input, cut and run in any way, gives what a plain loop gives", function()
    local seed = tonumber(os.getenv "TDL_SEED") or os.time()
    print("# seed of the parallel loops: " .. seed)
    math.randomseed(seed)
    local wide = treadle.pool("parallel_tasks", { threads = 8, concurrency = 2 })
    local function maybe(value)
      return math.random(2) == 1 and value or nil
    end
    for _ = 1, 60 do
      local n = math.random(0, 300)
      local list, want, even, text = {}, {}, {}, "<"
      for i = 1, n do
        list[i] = math.random(1000)
        want[i] = list[i] * 3
        even[#even + 1] = list[i] % 2 == 0 and list[i] or nil
        text = text .. list[i] .. ","
      end
      local options = {
        pool = wide, chunk = maybe(math.random(50)), concurrency = maybe(math.random(20)),
      }
      local loops = {
        treadle.pmap(function(x) return in_worker(x) * 3 end, list, options),
        treadle.pfilter(function(x) return in_worker(x) % 2 == 0 end, list, options),
        treadle.preduce(function(a, b) return in_worker(a) .. b end, "<",
          treadle.pmap(function(x) return in_worker(x) .. "," end, list, options):await(), options),
        treadle.psort(list, function(a, b) return in_worker(a) < b end, { pool = wide }),
      }
      local doomed = treadle.pmap(in_worker, list, options)
      if math.random(2) == 1 then
        treadle.poll()
      end
      doomed:cancel { force = math.random(4) == 1 }
      treadle.all_settled(loops):await()
      table.sort(list)
      for i, wanted in ipairs { want, even, text, list } do
        local done, value = loops[i]:pawait()
        if done then
          assert.same(wanted, value)
        else -- its worker was stopped with the doomed one
          assert.equal("crashed", value.kind)
        end
      end
    end
    wide:close()
  end)

  describe("arguments:", function()
    it("unknown options are errors with a suggestion", function()
      local text = helpers.error_here(function() treadle.pmap(math.abs, {}, { chunks = 2 }) end)
      assert.equal("bad argument #3 to 'pmap' (unknown option 'chunks', did you mean 'chunk'?)",
        text)
      text = helpers.error_here(function() treadle.pfor(1, 2, math.abs, { record = 1 }) end)
      assert.matches("unknown option 'record'", text)
      treadle.pfor(1, 2, math.abs, { ordered = true }):await()
      text = helpers.error_here(function() pool:map("double", {}, { pool = pool }) end)
      assert.matches("bad argument #3 to 'map' %(unknown option 'pool'", text)
      text = helpers.error_here(function() treadle.pmap(math.abs, {}, { pool = {} }) end)
      assert.matches("option 'pool': a pool expected, got table", text)
    end)

    it("wrong types are errors at the caller's line", function()
      local text = helpers.error_here(function() treadle.pmap(1, {}) end)
      assert.equal("bad argument #1 to 'pmap' (function expected, got number)", text)
      text = helpers.error_here(function() treadle.pmap("double", {}) end)
      assert.matches("the name of a task needs the option 'pool'", text)
      text = helpers.error_here(function() treadle.pmap("dubble", {}, { pool = pool }) end)
      assert.matches("has no task 'dubble', did you mean 'double'%?", text)
      text = helpers.error_here(function() pool:map("dubble", {}) end)
      assert.matches("bad argument #1 to 'map' %(pool 'parallel_tasks' has no task 'dubble'", text)
      text = helpers.error_here(function() treadle.pmap(math.abs) end)
      assert.matches("bad argument #2 to 'pmap' %(table or buffer", text)
      text = helpers.error_here(function() treadle.preduce(math.max, 0, 5) end)
      assert.matches("bad argument #3 to 'preduce'", text)
      text = helpers.error_here(function() treadle.pfor("1", 2, math.abs) end)
      assert.matches("bad argument #1 to 'pfor' %(number expected, got string%)", text)
      text = helpers.error_here(function() treadle.psort(1) end)
      assert.matches("bad argument #1 to 'psort'", text)
      local closed = treadle.buffer("int", 1)
      closed:close()
      text = helpers.error_here(function() treadle.psort(closed) end)
      assert.equal("bad argument #1 to 'psort' (the buffer is closed)", text)
      text = helpers.error_here(function() treadle.pmap(math.abs, closed) end)
      assert.equal("bad argument #2 to 'pmap' (the buffer is closed)", text)
      text = helpers.error_here(function() pool:reduce("add", 0, closed) end)
      assert.equal("bad argument #3 to 'reduce' (the buffer is closed)", text)
    end)
  end)

  it("the shared pool is made when it is needed, and ends with the process", function()
    local out, err, code = helpers.child("treadle", [[
      local treadle = require "treadle"
      local lfs = require "lfs"
      local function threads()
        local n = 0
        for name in lfs.dir "/proc/self/task" do
          n = n + (name:match "^%d+$" and 1 or 0)
        end
        return n
      end
      assert(threads() == 1)
      assert(#treadle.pmap(function(x) return x * x end, { 1, 2, 3 }):await() == 3)
      assert(threads() == 1)
      local ids = treadle.pmap(function() return require("treadle").worker.name end, { 1, 2 })
        :await()
      assert(ids[1] == "parallel")
      local after = threads()
      assert(after > 1)
      treadle.pmap(function() return require("treadle").worker.name end, { 1, 2 }):await()
      assert(threads() == after)
      print "done"
    ]])
    assert.same({ "done\n", "", 0 }, { out, err, code })
  end)
end)
