--- Reactive values: signals, computed values, effects.
local helpers = require "helpers"
local treadle = require "treadle"

local signal, computed, effect = treadle.signal, treadle.computed, treadle.effect

--- The error that a function raises, as text.
local function failure(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(err)
end

--- Let the loop take a turn.
local function turn()
  treadle.run(function() treadle.sleep(0) end)
end

describe("a signal", function()
  it("is read and set in three ways that are the same", function()
    local s = signal(1)
    assert.same({ 1, 1, 1, 1 }, { s:get(), s(), s.value, s:peek() })
    s:set(2)
    assert.equal(2, s.value)
    s(3)
    assert.equal(3, s:get())
    s.value = 4
    assert.equal(4, s())
    s:update(function(v) return v + 1 end)
    assert.equal(5, s:peek())
  end)

  it("can be set to nil, and from nil, in each of them", function()
    local s = signal()
    assert.is_nil(s:get())
    for _, set in ipairs {
      function(v) s:set(v) end, function(v) s(v) end, function(v) s.value = v end,
      function(v) s:update(function() return v end) end,
    } do
      set(false)
      assert.is_false(s.value)
      set(nil)
      assert.is_nil(s())
      assert.is_nil(s.value)
      set("x")
      assert.equal("x", s:peek())
    end
    assert.equal(0, select("#", s(nil)))
  end)

  it("does nothing when it is set to what it is, NaN included", function()
    local nan, t = 0 / 0, {}
    local runs, s = 0, signal(nan)
    local stop = effect(function() runs = runs + 1 return s:get() and nil end)
    s:set(nan)
    treadle.flush()
    assert.equal(1, runs)
    s:set(t)
    treadle.flush()
    s:set(t)
    treadle.flush()
    assert.equal(2, runs)
    s:set(setmetatable({}, { __eq = function() return true end }))
    treadle.flush()
    assert.equal(3, runs)
    stop()
  end)

  it("takes a function that says what is equal", function()
    local asked = {}
    local s = signal(1, { equals = function(a, b)
      asked[#asked + 1] = a .. ":" .. b
      return math.floor(a) == math.floor(b)
    end })
    s:set(1.5)
    assert.equal(1, s:get())
    s:set(2)
    assert.equal(2, s:get())
    assert.same({ "1:1.5", "1:2" }, asked)
    local bad = signal(1, { equals = function() error "no" end })
    assert.matches("no", failure(bad.set, bad, 2))
    assert.equal(1, bad:get())
  end)

  it("says what is wrong at the line of who is", function()
    local s = signal(1)
    assert.matches("signal_spec.lua:%d+: bad argument #1 to 'get' %(reactive signal expected, got "
      .. "number%)", failure(function() s.get(1) end))
    assert.matches("reactive signal expected", failure(s.set, treadle.abort().signal, 1))
    assert.matches("signal_spec.lua:%d+: a reactive signal has no field 'valeu'",
      failure(function() s.valeu = 1 end))
    assert.matches("unknown option 'equal', did you mean 'equals'",
      failure(signal, 1, { equal = print }))
    assert.matches("bad argument #1 to 'update' %(function expected", failure(s.update, s))
    assert.matches("bad argument #1 to 'computed' %(function expected", failure(computed))
    assert.matches("bad argument #1 to 'effect' %(function expected", failure(effect))
    assert.matches("bad argument #1 to 'batch' %(function expected", failure(treadle.batch))
    assert.matches("bad argument #1 to 'untrack' %(function expected", failure(treadle.untrack))
    assert.equal("reactive signal 'x' (1)", tostring(signal(1, { name = "x" })))
    assert.equal("signal", tostring(treadle.abort().signal))
  end)
end)

describe("a computed value", function()
  it("is read in three ways, and cannot be set", function()
    local s = signal(2)
    local c = computed(function() return s() * 2 end)
    assert.same({ 4, 4, 4, 4 }, { c:get(), c(), c.value, c:peek() })
    for _, set in ipairs {
      function() c:set(1) end, function() c(1) end, function() c.value = 1 end,
      function() c(nil) end, function() c:update(print) end,
    } do
      assert.matches("signal_spec.lua:%d+: a computed value cannot be set", failure(set))
    end
    assert.matches("no field 'x'", failure(function() c.x = 1 end))
    assert.equal(4, c:get())
  end)

  it("is computed when it is read, and once for a change", function()
    local runs, s, other = 0, signal(1), signal(1)
    local c = computed(function() runs = runs + 1 return s:get() end)
    assert.equal(0, runs)
    for _ = 1, 3 do
      c:get()
    end
    assert.equal(1, runs)
    s:set(2)
    s:set(3)
    other:set(2)
    assert.equal(1, runs)
    assert.equal(3, c:get())
    assert.equal(3, c:get())
    assert.equal(2, runs)
  end)

  it("can be nil or false", function()
    local s = signal(nil)
    local c = computed(function() return s:get() end)
    assert.is_nil(c:get())
    s:set(false)
    assert.is_false(c:get())
    s:set(nil)
    assert.is_nil(c.value)
    assert.is_nil(computed(function() end):get())
  end)

  for _, watched in ipairs { false, true } do
    local how = watched and ", watched" or ", not watched"

    it("is not computed when its sources turn out equal" .. how, function()
      local s, runs = signal(1), 0
      local sign = computed(function() return s:get() > 0 end)
      local last = computed(function() runs = runs + 1 return sign:get() and "+" or "-" end)
      local stop = watched and effect(function() last:get() end) or function() end
      assert.equal("+", last:get())
      s:set(5)
      assert.equal("+", last:get())
      assert.equal(1, runs)
      s:set(-5)
      assert.equal("-", last:get())
      assert.equal(2, runs)
      stop()
    end)

    it("goes by its function of equality" .. how, function()
      local s, runs = signal { 1 }, 0
      local list = computed(function() return { s:get()[1] } end,
        { equals = function(a, b) return a[1] == b[1] end })
      local first = computed(function() runs = runs + 1 return list:get()[1] end)
      local stop = watched and effect(function() first:get() end) or function() end
      first:get()
      local before = list:get()
      s:set { 1 }
      first:get()
      assert.equal(before, list:get())
      assert.equal(1, runs)
      s:set { 2 }
      assert.equal(2, first:get())
      stop()
    end)

    it("leaves what it does not read any more" .. how, function()
      local which, a, b, runs = signal(true), signal("a"), signal("b"), 0
      local c = computed(function() runs = runs + 1 return which:get() and a:get() or b:get() end)
      local stop = watched and effect(function() c:get() end) or function() end
      c:get()
      b:set "B"
      c:get()
      assert.equal(1, runs)
      which:set(false)
      assert.equal("B", c:get())
      a:set "A"
      c:get()
      assert.equal(2, runs)
      which:set(true)
      assert.equal("A", c:get())
      assert.equal(3, runs)
      stop()
    end)

    it("keeps an error, raises it in whoever reads, and recovers" .. how, function()
      local s, runs, seen = signal(0), 0, nil
      local c = computed(function()
        runs = runs + 1
        if s:get() == 0 then
          error({ code = 7 }, 0)
        end
        return s:get()
      end)
      local next_one = computed(function() return c:get() end)
      local stop = watched and effect(function() seen = { pcall(next_one.get, next_one) } end)
        or function() end
      for _ = 1, 3 do
        local ok, err = pcall(next_one.get, next_one)
        assert.same({ false, 7 }, { ok, err.code })
      end
      assert.equal(1, runs)
      s:set(1)
      assert.equal(1, next_one:get())
      treadle.flush()
      assert.same(watched and { true, 1 } or nil, seen)
      stop()
    end)

    it("that reads itself is an error that names the cycle, and recovers" .. how, function()
      local broken, b = signal(true), nil
      local a = computed(function() return broken:get() and b:get() or 1 end, { name = "first" })
      b = computed(function() return a:get() + 1 end)
      local seen
      local stop = watched and effect(function() seen = select(2, pcall(b.get, b)) end)
        or function() end
      for _, one in ipairs { a, b } do
        local text = failure(one.get, one)
        assert.matches("a cycle: ", text)
        assert.matches("computed value 'first' %(spec/signal_spec.lua:%d+%)", text)
        assert.matches("computed value %(spec/signal_spec.lua:%d+%)", text)
      end
      broken:set(false)
      assert.equal(1, a:get())
      assert.equal(2, b:get())
      treadle.flush()
      assert.equal(watched and 2 or nil, seen)
      broken:set(true)
      assert.matches("a cycle: ", failure(b.get, b))
      stop()
    end)
  end

  it("cannot be read by itself alone", function()
    local c
    c = computed(function() return c:peek() end)
    assert.matches("reads itself", failure(c.get, c))
  end)

  it("can change nothing, make no effect, and not wait", function()
    local s = signal(1)
    for want, fn in pairs {
      ["signal_spec.lua:%d+: a computed value cannot set a signal"] = function() s:set(2) end,
      ["cannot set a signal"] = function() treadle.untrack(function() s.value = 2 end) end,
      ["a computed value cannot make an effect"] = function() effect(print) end,
      ["signal_spec.lua:%d+: .*cannot wait"] = function() treadle.sleep(0) end,
      ["computed value, an effect or a batch cannot wait"] = function() treadle.poll() end,
      ["yield"] = coroutine.yield,
    } do
      local c = computed(fn)
      assert.matches(want, failure(c.get, c))
      assert.matches(want, treadle.run(function() return failure(c.get, computed(fn)) end))
    end
    assert.equal(1, s:get())
    treadle.run(function() treadle.sleep(0) end)
  end)

  it("stands on 100,000 others", function()
    for _, watched in ipairs { false, true } do
      local s = signal(0)
      local last = s
      for _ = 1, 1e5 do
        local before = last
        last = computed(function() return before:get() + 1 end)
      end
      local seen
      local stop = watched and effect(function() seen = last:get() end) or function() end
      assert.equal(1e5, last:get())
      s:set(1)
      assert.equal(1e5 + 1, last:get())
      treadle.flush()
      assert.equal(watched and 1e5 + 1 or nil, seen)
      stop()
      s:set(2)
      assert.equal(1e5 + 2, last:get())
    end
  end)

  it("stands on 100,000 others in a task, too", function()
    local pool = treadle.pool("string", { threads = 1 })
    local got = pool:run(function()
      local t = require "treadle"
      local s = t.signal(0)
      local last = s
      for _ = 1, 1e5 do
        local before = last
        last = t.computed(function() return before:get() + s:get() * 0 + 1 end)
      end
      local seen
      t.effect(function() seen = last:get() end)
      s:set(5)
      t.sleep(0)
      t.sleep(0)
      return seen
    end):await()
    assert.equal(1e5 + 5, got)
    pool:close()
  end)
end)

describe("an effect", function()
  it("runs at once, then at the next turn of the loop, once for all changes", function()
    local a, b, seen = signal(1), signal(2), {}
    local stop = effect(function() seen[#seen + 1] = a:get() + b:get() end)
    assert.same({ 3 }, seen)
    a:set(10)
    b:set(20)
    a:set(11)
    assert.same({ 3 }, seen)
    turn()
    assert.same({ 3, 31 }, seen)
    turn()
    assert.same({ 3, 31 }, seen)
    stop()
    a:set(0)
    turn()
    assert.same({ 3, 31 }, seen)
  end)

  it("runs at a flush, and not again for what was taken back", function()
    local s, runs = signal(1), 0
    local c = computed(function() return s:get() % 2 end)
    local stop = effect(function() runs = runs + 1 return c:get() and nil end)
    s:set(2)
    s:set(3)
    treadle.flush()
    assert.equal(1, runs)
    s:set(4)
    treadle.flush()
    treadle.flush()
    assert.equal(2, runs)
    stop()
  end)

  it("runs at the end of the outermost batch, whatever becomes of it", function()
    local a, b, seen = signal(1), signal(1), {}
    local stop = effect(function() seen[#seen + 1] = a:get() .. b:get() end)
    assert.same({ "x", nil, 3, n = 3 }, (function(...) return { n = select("#", ...), ... } end)(
      treadle.batch(function()
        a:set(2)
        assert.equal(2, a:get())
        treadle.batch(function() b:set(2) end)
        treadle.flush()
        assert.same({ "11" }, seen)
        return "x", nil, 3
      end)))
    assert.same({ "11", "22" }, seen)
    assert.matches("stop", failure(treadle.batch, function() a:set(3) error "stop" end))
    assert.same({ "11", "22", "32" }, seen)
    assert.matches("cannot wait", failure(treadle.batch, function() treadle.sleep(0) end))
    assert.matches("yield", treadle.run(function()
      return failure(treadle.batch, coroutine.yield)
    end))
    turn()
    stop()
  end)

  it("runs after those that were made before it", function()
    local s, order = signal(0), {}
    local first = signal(0)
    local stops = {}
    for i = 1, 5 do
      -- the later ones are entered at the signal first
      stops[i] = effect(function()
        if first:get() > 0 then
          s:get()
          order[#order + 1] = i
        end
      end)
    end
    s:get()
    for i = 5, 1, -1 do
      stops[#stops + 1] = effect(function() s:get() order[#order + 1] = 10 - i end)
    end
    order = {}
    treadle.batch(function() s:set(1) first:set(1) end)
    assert.same({ 1, 2, 3, 4, 5, 5, 6, 7, 8, 9 }, order)
    for _, stop in ipairs(stops) do
      stop()
    end
  end)

  it("cleans up before it runs again, and when it is disposed of", function()
    local s, log = signal(1), {}
    local stop = effect(function()
      local v = s:get()
      log[#log + 1] = "run " .. v
      return function() log[#log + 1] = "clean " .. v end
    end)
    s:set(2)
    treadle.flush()
    stop()
    stop()
    assert.same({ "run 1", "clean 1", "run 2", "clean 2" }, log)
  end)

  it("does not read what the cleanup of another reads, of which it disposes", function()
    local s, other, runs = signal(1), signal(1), 0
    local inner = effect(function()
      return function() other:get() end
    end)
    local stop = effect(function()
      runs = runs + 1
      s:get()
      inner()
    end)
    other:set(2)
    treadle.flush()
    assert.equal(1, runs)
    stop()
  end)

  it("does not read what its cleanup reads", function()
    local s, other, runs = signal(1), signal(1), 0
    local stop = effect(function()
      runs = runs + 1
      s:get()
      return function() other:get() end
    end)
    s:set(2)
    treadle.flush()
    other:set(2)
    treadle.flush()
    assert.equal(2, runs)
    stop()
  end)

  it("that sets what it reads runs until it does not, and at most 100 times", function()
    local s, runs = signal(0), 0
    local stop = effect(function()
      runs = runs + 1
      if s:get() < 10 then
        s:set(s:get() + 1)
      end
    end)
    treadle.flush()
    assert.equal(10, s:get())
    assert.equal(11, runs)
    stop()
    local errors, endless = {}, signal(0)
    runs = 0
    stop = effect(function()
      runs = runs + 1
      endless:update(function(v) return v + 1 end)
      endless:get()
      endless:set(endless:peek() + 1)
    end, { on_error = function(err) errors[#errors + 1] = err end })
    assert.equal(1, runs)
    treadle.flush()
    assert.equal(101, runs)
    assert.equal(1, #errors)
    assert.matches("it has run 100 times in a row", errors[1])
    treadle.flush()
    turn()
    assert.equal(101, runs)
    endless:set(-1) -- it is still there
    treadle.flush()
    assert.equal(201, runs)
    stop()
  end)

  it("may dispose of itself, at each place", function()
    local s, log = signal(1), {}
    local stop
    stop = effect(function()
      log[#log + 1] = s:get()
      if s:peek() == 2 then
        stop()
        s:get()
        effect(function() log[#log + 1] = "child " .. s:get() end)
        return function() log[#log + 1] = "cleaned" end
      end
    end)
    s:set(2)
    treadle.flush()
    s:set(3)
    treadle.flush()
    assert.same({ 1, 2, "child 2", "cleaned" }, log)
    -- in its cleanup
    log = {}
    stop = effect(function()
      log[#log + 1] = s:get()
      return function() stop() end
    end)
    s:set(4)
    treadle.flush()
    s:set(5)
    treadle.flush()
    assert.same({ 3 }, log)
    -- while a value is computed for it
    log = {}
    local c = computed(function()
      if s:get() == 6 then
        stop()
      end
      return s:get()
    end)
    stop = effect(function() log[#log + 1] = c:get() end)
    s:set(6)
    treadle.flush()
    s:set(7)
    treadle.flush()
    assert.same({ 5 }, log)
  end)

  it("disposes of those that it has made, before it runs again and with itself", function()
    local outer, inner, log = signal("a"), signal(1), {}
    local stop = effect(function()
      local v = outer:get()
      for i = 1, 2 do
        effect(function()
          log[#log + 1] = v .. i .. inner:get()
          return function() log[#log + 1] = "-" .. v .. i end
        end)
      end
      return function() log[#log + 1] = "-" .. v end
    end)
    assert.same({ "a11", "a21" }, log)
    log = {}
    inner:set(2)
    treadle.flush()
    assert.same({ "-a1", "a12", "-a2", "a22" }, log)
    log = {}
    treadle.batch(function() inner:set(3) outer:set "b" end)
    assert.same({ "-a2", "-a1", "-a", "b13", "b23" }, log)
    log = {}
    stop()
    inner:set(4)
    treadle.flush()
    assert.same({ "-b2", "-b1", "-b" }, log)
  end)

  it("tells on_error what it raises, and goes on", function()
    local s, errors, runs = signal(1), {}, 0
    local stop = effect(function()
      runs = runs + 1
      if s:get() % 2 == 0 then
        error({ code = s:get() }, 0)
      end
      return function() error("cleanup " .. s:peek(), 0) end
    end, { on_error = function(err)
      errors[#errors + 1] = type(err) == "table" and err.code or err
    end })
    for v = 2, 4 do
      s:set(v)
      treadle.flush()
    end
    stop()
    assert.same({ "cleanup 2", 2, "cleanup 4", 4 }, errors)
    assert.equal(4, runs)
  end)

  it("prints what it raises, in one piece with a traceback, and the others run", function()
    local path = helpers.write(helpers.new_path(".lua"), [[
      local t = require "treadle"
      local s, seen = t.signal(1), 0
      t.effect(function() if s:get() > 1 then error "bad luck" end end, { name = "unlucky" })
      t.effect(function() seen = s:get() end)
      t.effect(function() s:get() error(setmetatable({}, { __tostring = error })) end,
        { on_error = function() error "worse" end })
      s:set(2)
      t.flush()
      s:set(1)
      t.flush()
      print(seen)
    ]])
    local pipe = io.popen(("treadle %s 2>&1"):format(path))
    local text = pipe:read "*a"
    pipe:close()
    assert.matches("treadle: error in an effect 'unlucky' %(.-:3%): .-:3: bad luck\n"
      .. "stack traceback:", text)
    assert.matches("error object %(a table%) whose __tostring failed", text)
    assert.matches("worse", text)
    assert.matches("\n1\n", "\n" .. text)
  end)

  it("cannot wait, but what it spawns can, and does not read for it then", function()
    local s, later, runs, errors = signal(1), signal(1), 0, {}
    local stop = effect(function()
      runs = runs + 1
      s:get()
      treadle.spawn(function()
        treadle.sleep(0)
        later:get()
      end)
      treadle.sleep(0)
    end, { on_error = function(err) errors[#errors + 1] = err end })
    assert.matches("cannot wait", errors[1])
    turn()
    later:set(2)
    treadle.flush()
    assert.equal(1, runs)
    s:set(2)
    turn()
    assert.equal(2, runs)
    stop()
    turn()
  end)

  it("spawns what may wait, but not within a computed value", function()
    local slow, text = computed(function() treadle.sleep(0) return 1 end), nil
    local stop = effect(function()
      treadle.spawn(function()
        text = failure(slow.get, slow)
        treadle.sleep(0)
        text = text .. ", and then it did"
      end)
    end)
    assert.matches("cannot wait", text)
    turn()
    turn()
    assert.matches("and then it did", text)
    stop()
  end)

  it("that waits leaves what it has waited for as it was", function()
    local channel, text = treadle.channel(), nil
    local stop = effect(function() channel:recv() end, { on_error = function(err) text = err end })
    assert.matches("cannot wait", text)
    local got = treadle.spawn(function() return channel:recv() end)
    channel:send("for the other")
    assert.equal("for the other", got:await())
    stop()
  end)

  it("reads nothing in untrack", function()
    local a, b, seen = signal(1), signal(1), {}
    local stop = effect(function()
      seen[#seen + 1] = a:get() + treadle.untrack(function() return b:get() end) + b:peek()
    end)
    b:set(10)
    treadle.flush()
    assert.same({ 3 }, seen)
    a:set(2)
    treadle.flush()
    assert.same({ 3, 22 }, seen)
    assert.same({ 1, nil, 3 }, { treadle.untrack(function() return 1, nil, 3 end) })
    stop()
    local reads, text = signal(1), nil
    stop = effect(function()
      text = failure(treadle.untrack, function() error "out" end)
      reads:get()
      seen = reads:peek()
    end)
    assert.matches("out", text)
    reads:set(2)
    treadle.flush()
    assert.equal(2, seen)
    stop()
  end)

  it("sees no mixed state in a diamond, of any width", function()
    for _, width in ipairs { 2, 3, 100 } do
      local s, runs, sums = signal(0), 0, {}
      local sides = {}
      for i = 1, width do
        sides[i] = computed(function() runs = runs + 1 return s:get() * i end)
      end
      local stop = effect(function()
        local base = sides[1]:get()
        for i = 2, width do
          assert(sides[i]:get() == base * i, "a mixed state")
        end
        sums[#sums + 1] = base
      end, { on_error = function(err) sums[#sums + 1] = err end })
      for v = 1, 5 do
        s:set(v)
        if v % 2 == 0 then
          assert.equal(v * width, sides[width]:get())
        end
        treadle.flush()
      end
      assert.same({ 0, 1, 2, 3, 4, 5 }, sums)
      assert.equal(6 * width, runs)
      stop()
    end
  end)

  it("of a task runs in its worker, at the turns of its loop", function()
    local pool = treadle.pool("string", { threads = 1 })
    local seen = pool:run(function()
      local t = require "treadle"
      local s, list = t.signal(1), {}
      t.effect(function() list[#list + 1] = s:get() end)
      s:set(2)
      t.sleep(0)
      t.sleep(0)
      s:set(3)
      t.flush()
      local yielded = t.signal(0)
      t.effect(function() yielded:get() coroutine.yield() end, { on_error = function() end })
      t.sleep(0)
      return list
    end):await()
    assert.same({ 1, 2, 3 }, seen)
    assert.equal("x", pool.call.rep("x", 1):await())
    pool:close()
  end)
end)

describe("the memory of reactive values", function()
  local function collect()
    require("jit").flush() -- a trace holds on to the functions that it calls
    for _ = 1, 3 do
      collectgarbage()
    end
  end

  it("is given back when nobody holds a computed value", function()
    local s, list = signal(1), setmetatable({}, { __mode = "k" })
    local function make(from)
      local c = computed(function() return from:get() end)
      list[c] = true
      return c
    end
    local c = make(make(make(s)))
    assert.equal(1, c:get())
    s:set(2)
    assert.equal(2, c:get())
    local stop = effect(function() c:get() end)
    s:set(3)
    treadle.flush()
    c = nil -- luacheck: ignore
    collect()
    local n = 0
    for _ in pairs(list) do n = n + 1 end
    assert.equal(3, n) -- the effect holds them
    stop()
    stop = nil -- luacheck: ignore
    collect()
    assert.is_nil(next(list))
    s:set(4)
    assert.is_false(s._readers)
  end)

  it("keeps effects until they are disposed of, also those that nobody holds", function()
    local list, seen = setmetatable({}, { __mode = "kv" }), 0
    do
      local held, s = {}, signal(1)
      list.held, list.s = held, s
      local stop
      stop = effect(function()
        seen = s:get()
        list.held = held
        if seen == 3 then
          stop()
        end
      end)
    end
    collect()
    assert.is_table(list.held)
    list.s:set(2)
    treadle.flush()
    assert.equal(2, seen)
    list.s:set(3)
    treadle.flush()
    assert.equal(3, seen)
    collect()
    assert.is_nil(next(list))
  end)

  it("does not grow with changes, reads and branches", function()
    local s, which = signal(0), signal(0)
    local sides = {}
    for i = 1, 10 do
      sides[i] = computed(function() return s:get() + i end)
    end
    local c = computed(function() return sides[which:get() % 10 + 1]:get() end)
    local stop = effect(function() c:get() end)
    local function work(n)
      for i = 1, n do
        s:set(i)
        which:set(which:get() + 1)
        if i % 3 == 0 then
          c:get()
        end
        effect(function() s:get() end)()
        treadle.flush()
      end
      collect()
      return collectgarbage "count"
    end
    work(1000)
    local before = work(1000)
    assert.is_true(work(20000) < before + 32)
    stop()
  end)
end)

-- Random graphs against what a naive recomputation gives.
describe("random graphs", function()
  local MODULUS = 7 -- small, so that values often turn out equal

  --- A linear congruence (Numerical Recipes), so that a seed means the same everywhere.
  local function new_random(seed)
    local state = seed
    return function(n)
      state = (state * 1664525 + 1013904223) % 2 ^ 32
      return math.floor(state / 65536) % n + 1
    end
  end

  local function check(seed)
    local random = new_random(seed)
    local signals, nodes, model = {}, {}, {}
    local runs = {} -- of each node since the last change
    for i = 1, random(5) do
      signals[i] = { signal = signal(0), value = 0 }
      nodes[i] = signals[i]
    end
    --- What node i is: reads some before it, one of which decides which others.
    local function define(i)
      local chooser, left, right = random(i - 1), {}, {}
      for _ = 1, random(4) do left[#left + 1] = random(i - 1) end
      for _ = 1, random(4) do right[#right + 1] = random(i - 1) end
      local fails = random(12) == 1 and random(MODULUS) - 1
      model[i] = function(read)
        local first = read(chooser)
        local sum = first
        for _, j in ipairs(first % 2 == 0 and left or right) do
          sum = sum + read(j)
        end
        if sum % MODULUS == fails then
          error(fails, 0)
        end
        return sum % MODULUS
      end
    end
    local function read(i)
      return nodes[i].signal:get()
    end
    for i = #signals + 1, #signals + random(25) do
      define(i)
      nodes[i] = { signal = computed(function()
        runs[i] = (runs[i] or 0) + 1
        return model[i](read)
      end) }
    end
    local function naive(i)
      if signals[i] then
        return signals[i].value
      end
      return model[i](naive)
    end
    local function expect(i, ok, value)
      local fine, wanted = pcall(naive, i)
      if ok ~= fine or value ~= wanted then
        error(("seed %d: node %d is %s, not %s"):format(seed, i, tostring(value), tostring(wanted)))
      end
    end
    --- Effects: each looks at some nodes, and all of them are to be right whenever it runs.
    local effects = {}
    local function watch()
      local list, e = {}, { runs = 0 }
      for _ = 1, random(4) do list[#list + 1] = random(#nodes) end
      e.stop = effect(function()
        e.runs = e.runs + 1
        e.seen = {}
        for _, i in ipairs(list) do
          local ok, value = pcall(read, i)
          expect(i, ok, value)
          e.seen[#e.seen + 1] = tostring(value)
        end
        e.seen = table.concat(e.seen, " ")
      end, { on_error = function(err) e.problem = err end })
      e.list = list
      effects[#effects + 1] = e
    end
    local function change()
      local one = signals[random(#signals)]
      one.value = random(MODULUS) - 1
      one.signal:set(one.value)
    end
    for _ = 1, 60 do
      local what = random(10)
      runs = {}
      if what <= 4 then
        change()
      elseif what <= 6 then
        treadle.batch(function() for _ = 1, random(4) do change() end end)
      elseif what == 7 and #effects < 6 then
        watch()
      elseif what == 8 and #effects > 0 then
        table.remove(effects, random(#effects)).stop()
      else
        local i = random(#nodes)
        local ok, value = pcall(read, i)
        expect(i, ok, value)
      end
      if random(3) > 1 then
        local before = {}
        for i, e in ipairs(effects) do before[i] = e.runs end
        treadle.flush()
        for i, e in ipairs(effects) do
          local text = {}
          for k, j in ipairs(e.list) do text[k] = tostring(select(2, pcall(naive, j))) end
          assert(not e.problem, e.problem)
          assert(e.seen == table.concat(text, " "), ("seed %d: an effect missed it"):format(seed))
          assert(e.runs - before[i] <= 1, ("seed %d: an effect has run twice"):format(seed))
        end
      end
      for i, n in pairs(runs) do -- one change, or one batch: once at most for each of its states
        assert(n <= 1 or what == 5 or what == 6, ("seed %d: node %d was computed %d times"):format(
          seed, i, n))
      end
    end
    for _, e in ipairs(effects) do
      e.stop()
    end
    for _, one in ipairs(signals) do
      assert(not one.signal._readers, ("seed %d: somebody is still entered"):format(seed))
    end
  end

  it("hold what a naive recomputation gives, and nobody sees anything else", function()
    local first = tonumber(os.getenv "TDL_SEED") or os.time() % 1e6
    print(("signal_spec: seeds %d to %d (TDL_SEED=%d)"):format(first, first + 299, first))
    for seed = first, first + 299 do
      check(seed)
    end
  end)
end)
