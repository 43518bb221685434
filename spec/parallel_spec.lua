--- Parallel loops over lists, ranges, records and iterators.
local helpers = require "helpers"
local plain = require "loop_helpers"
local treadle = require "treadle"

local range, in_worker, with_clock = plain.range, plain.in_worker, plain.with_clock

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

    for _, chunk in ipairs { 1, 3, 100, 20000, 30000 } do
      it("gives the same bits for the same input and a chunk of " .. chunk, function()
        math.randomseed(20261121)
        local list = {}
        for i = 1, math.min(20000, 2000 * chunk) do -- each part is a call, which takes its time
          list[i] = (math.random() - 0.5) * 10 ^ math.random(-12, 12)
        end
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
      end)
    end

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
