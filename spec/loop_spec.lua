--- The module: clock, coroutines, the loop and its driving from outside.
local helpers = require "helpers"
local treadle = require "treadle"

local loop = require "treadle.loop"

local ffi = require "ffi"

ffi.cdef [[
  struct spec_pollfd { int fd; short events; short revents; };
  int poll(struct spec_pollfd *, unsigned long, int);
]]

local POLLIN = 1

--- Seconds that a loop of somebody else sleeps before it counts as never woken.
local LIMIT = 8

describe("the module", function()
  local done, pool

  setup(function()
    treadle.fd()
    done = helpers.watch()
    pool = treadle.pool("tasks", { threads = 1, concurrency = 100 })
  end)

  teardown(helpers.clean)

  it("knows that this is the host", function()
    assert.is_true(treadle.is_main)
    assert.is_nil(treadle.worker)
    assert.equal(treadle, require "treadle")
  end)

  it("has a version of three numbers", function()
    assert.matches("^%d+%.%d+%.%d+$", treadle.version)
  end)

  it("counts at least one core, and no more than there are", function()
    local n = treadle.cores()
    assert.is_true(n >= 1 and n == math.floor(n))
    local pipe = io.popen("nproc --all")
    assert.is_true(n <= pipe:read("*n"))
    pipe:close()
  end)

  it("polls no longer than its budget says, but for one thing", function()
    local ran = {}
    for i = 1, 3 do
      treadle.resolved(i):and_then(function() ran[#ran + 1] = i end)
    end
    assert.equal(1, treadle.poll(0, 0))
    assert.same({ 1 }, ran)
    assert.equal(0, treadle.next_timeout()) -- the others are ready
    treadle.poll(0, -1)
    assert.same({ 1, 2 }, ran)
    local timer = treadle.spawn(treadle.sleep, 0)
    repeat until treadle.poll(1, helpers.TIMEOUT) > 0 and timer:state() ~= "pending"
    assert.same({ 1, 2, 3 }, ran)
    for _, wrong in ipairs { "0", {}, 0 / 0 } do
      assert.has_error(function() treadle.poll(0, wrong) end)
    end
  end)

  it("counts only the processors that it may use", function()
    local out, err, code = helpers.shell(
      [[exec taskset -c 0 luajit -e 'print(require("treadle").cores())']])
    assert.same({ "1\n", "", 0 }, { out, err, code })
  end)

  it("goes on as before when an error has left the main chunk's wait", function()
    local out, err, code = helpers.shell([[exec luajit - <<'END'
      local treadle = require "treadle"
      local coroutines = require "treadle.coroutines"
      local resume = coroutines.resume
      local f = treadle.spawn(function()
        treadle.sleep(0)
      end)
      coroutines.resume = function() -- where a hook would raise
        coroutines.resume = resume
        error("the limit", 0)
      end
      print(pcall(treadle.sleep, 0))
      f:cancel() -- which does not concern the main chunk
      print(pcall(treadle.sleep, 0))
END]])
    assert.same({ "false\tthe limit\ntrue\n", "", 0 }, { out, err, code })
  end)

  it("has a clock that does not go back", function()
    local last = treadle.now()
    for _ = 1, 1000 do
      local now = treadle.now()
      assert(now >= last)
      last = now
    end
  end)

  describe("sleep", function()
    it("takes at least as long as it says, 0 and less included", function()
      for _, seconds in ipairs { 0.01, 0, -1 } do
        local before = treadle.now()
        treadle.sleep(seconds)
        assert.is_true(treadle.now() - before >= seconds)
      end
    end)

    it("lets other coroutines run", function()
      assert.same({ "at once", "short", "long" }, helpers.with_limit(function(seconds)
        local order = {}
        local a = treadle.spawn(function()
          treadle.sleep(seconds)
          order[#order + 1] = "long"
        end)
        local b = treadle.spawn(function() -- before that is over
          treadle.sleep(0)
          order[#order + 1] = "short"
        end)
        order[#order + 1] = "at once"
        treadle.all { a, b }:await()
        return order[3] == "long" and order
      end))
    end)

    it("works in 1,000 coroutines at once", function()
      local list = {}
      for i = 1, 1000 do
        list[i] = treadle.spawn(function() treadle.sleep(0.01) return i end)
      end
      local values = treadle.all(list):await()
      assert.equal(1000, #values)
    end)

    it("in a main chunk runs the loop meanwhile", function()
      local ran
      treadle.spawn(function() treadle.sleep(0.001) ran = true end)
      treadle.sleep(0.05)
      assert.is_true(ran)
    end)

    it("of math.huge is ended by a cancel", function()
      local f = treadle.spawn(function() treadle.sleep(math.huge) end)
      assert.is_true(f:cancel())
    end)
  end)

  describe("spawn", function()
    it("runs up to the first wait at once, with the arguments", function()
      local got
      treadle.spawn(function(...) got = { select("#", ...), ... } end, 1, nil, 3, nil)
      assert.same({ 4, 1, nil, 3 }, got)
    end)

    it("gives a future of all results", function()
      local f = treadle.spawn(function() return 1, nil, 3, nil end)
      assert.same({ 4, 1, nil, 3 }, { (function(...) return select("#", ...), ... end)(f:await()) })
    end)

    it("rejects with the error", function()
      local ok, err = treadle.spawn(function() error("oops") end):pawait()
      assert.same({ false, "task" }, { ok, err.kind })
      assert.matches("loop_spec.lua:%d+: oops", err.message)
    end)

    it("tells a stray yield", function()
      local ok, err = treadle.spawn(function() coroutine.yield() end):pawait()
      assert.is_false(ok)
      assert.matches("coroutine.yield outside of a coroutine that this code made", tostring(err),
        1, true)
    end)

    it("lets a coroutine have coroutines of its own", function()
      local f = treadle.spawn(function()
        local sum = 0
        for v in coroutine.wrap(function()
          for i = 1, 3 do
            coroutine.yield(i)
          end
        end) do
          sum = sum + v
          treadle.sleep(0)
        end
        return sum
      end)
      assert.equal(6, f:await())
    end)
  end)

  describe("run", function()
    it("returns the results", function()
      assert.equal(5, treadle.run(function(a, b) treadle.sleep(0) return a + b end, 2, 3))
    end)

    it("raises the error", function()
      local ok, err = pcall(treadle.run, function() treadle.sleep(0) error({ code = 7 }) end)
      assert.is_false(ok)
      assert.equal(7, err.value.code)
    end)

    it("may be nested", function()
      assert.equal(3, treadle.run(function()
        return treadle.run(function() treadle.sleep(0) return 3 end)
      end))
    end)
  end)

  describe("poll", function()
    it("returns 0 when there is nothing", function()
      while treadle.poll() > 0 do end
      assert.equal(0, treadle.poll())
      assert.equal(0, treadle.poll(0.001))
    end)

    it("counts what it handles, and waits for it no longer than it is told", function()
      local f = pool.call.add(1, 2)
      assert.is_true(treadle.poll(helpers.TIMEOUT) >= 1)
      assert.equal("resolved", f:state())
    end)

    it("drives a loop of frames", function()
      local path, sum, left = helpers.new_path(), 0, 20
      for i = 1, 20 do
        pool.call.add(i, 0):and_then(function(v)
          sum, left = sum + v, left - 1
        end)
      end
      local handled = 0
      helpers.eventually(function()
        handled = handled + treadle.poll()
        return left == 0
      end)
      assert.equal(210, sum)
      assert.is_true(handled >= 20, path)
    end)

    it("runs timers and coroutines", function()
      local f = treadle.spawn(function() treadle.sleep(0.001) return "woken" end)
      helpers.poll_until(function() return f:state() == "resolved" end)
      assert.equal("woken", f:await())
    end)
  end)

  it("a sleep of main code that an error ends leaves no timer", function()
    local before = treadle.next_timeout()
    loop.defer(function() error("interrupted", 0) end) -- as Ctrl-C does
    assert.same({ false, "interrupted" }, { pcall(treadle.sleep, 60) })
    treadle.poll()
    assert.equal(before, treadle.next_timeout())
  end)

  describe("fd and next_timeout", function()
    -- One loop of somebody else, who sleeps in poll(2) alone.
    local function drive(fn)
      local pfd = ffi.new("struct spec_pollfd[1]")
      pfd[0].fd, pfd[0].events = treadle.fd(), POLLIN
      local stop, sleeps = os.time() + LIMIT, 0
      treadle.poll()
      while not fn() do
        assert(os.time() < stop, "the descriptor never woke this loop")
        local seconds = math.min(treadle.next_timeout(), LIMIT)
        ffi.C.poll(pfd, 1, math.ceil(seconds * 1000))
        sleeps = sleeps + 1
        treadle.poll()
      end
      return sleeps
    end

    it("there is no timer: math.huge", function()
      while treadle.poll() > 0 do end
      assert.equal(math.huge, treadle.next_timeout())
    end)

    it("the last timer was stopped: math.huge again", function()
      local f = treadle.future()
      treadle.spawn(f.wait, f, 1000)
      assert.is_true(treadle.next_timeout() < math.huge)
      f:cancel()
      while treadle.poll() > 0 do end
      assert.equal(math.huge, treadle.next_timeout())
    end)

    it("gives the time until the next timer", function()
      local f = treadle.spawn(treadle.sleep, 1000)
      local g = treadle.spawn(treadle.sleep, 500)
      local left = treadle.next_timeout()
      assert.is_true(left > 400 and left <= 500.001, tostring(left))
      f:cancel()
      g:cancel()
    end)

    it("is the same descriptor each time", function()
      assert.equal(treadle.fd(), treadle.fd())
      assert.is_number(treadle.fd())
    end)

    it("wake another loop for results", function()
      local n = 0
      for i = 1, 50 do
        pool.call.add(i, 1):and_then(function() n = n + 1 end)
      end
      drive(function() return n == 50 end)
    end)

    it("wake it for each of a series of calls", function()
      local n = 0
      local function again()
        n = n + 1
        return n < 100 and pool.call.echo(n):and_then(again)
      end
      again()
      drive(function() return n == 100 end)
    end)

    it("wake it for callbacks that wait for the next turn", function()
      local over
      treadle.resolved(1):and_then(function() end):and_then(function() end)
        :and_then(function() over = true end)
      drive(function() return over end)
    end)

    it("wake it for a result that comes late", function()
      local gate = helpers.new_path()
      local f, came = pool.call.hold(gate, "late"), nil
      f:and_then(function(v) came = v end)
      treadle.spawn(function()
        treadle.sleep(0.01)
        helpers.write(gate, "open")
      end)
      drive(function() return came end)
      assert.equal("late", came)
    end)

    it("wake it for timers", function()
      local f = treadle.spawn(function()
        treadle.sleep(0.005)
        treadle.sleep(0.005)
        return true
      end)
      local woken
      f:and_then(function() woken = true end)
      drive(function() return woken end)
    end)

    it("let it sleep while there is nothing to do", function()
      local f = treadle.spawn(treadle.sleep, 0.1)
      local over
      f:and_then(function() over = true end)
      assert.is_true(drive(function() return over end) < 50)
    end)
  end)

  describe("using", function()
    local function closable()
      return { closed = 0, close = function(self) self.closed = self.closed + 1 end }
    end

    it("passes on results and closes", function()
      local x = closable()
      assert.same({ 3, 1, nil, 3 }, { (function(...) return select("#", ...), ... end)(
        treadle.using(x, function(y)
          assert.equal(x, y)
          return 1, nil, 3
        end)) })
      assert.equal(1, x.closed)
    end)

    it("passes on the error and closes", function()
      local x, err = closable(), {}
      local ok, got = pcall(treadle.using, x, function() error(err) end)
      assert.is_false(ok)
      assert.equal(err, got)
      assert.equal(1, x.closed)
    end)

    it("closes a pool, also when the function waits in a coroutine", function()
      local kept
      local result = treadle.run(function()
        return treadle.using(treadle.pool("tasks", { threads = 1 }), function(p)
          kept = p
          treadle.sleep(0)
          return p.call.add(1, 2):await()
        end)
      end)
      assert.equal(3, result)
      assert.equal("closed", select(2, kept.call.add(1, 2):pawait()).kind)
    end)
  end)

  describe("encode and decode", function()
    it("round trip values and their number", function()
      local function pack(...)
        return { n = select("#", ...), ... }
      end
      local t = { 1, "two", { three = 3 } }
      t.self = t
      local got = pack(treadle.decode(treadle.encode(1, nil, "a\0b", true, t, nil)))
      assert.equal(6, got.n)
      assert.same({ 1, nil, "a\0b", true }, { got[1], got[2], got[3], got[4] })
      assert.equal(got[5], got[5].self)
      assert.equal(3, got[5][3].three)
      assert.same({ n = 0 }, pack(treadle.decode(treadle.encode())))
    end)

    it("name the path of what cannot travel", function()
      assert.matches("arguments[2].x",
        helpers.error_here(function() treadle.encode(1, { x = io.stdout }) end), 1, true)
    end)

    it("refuse bytes that are no payload", function()
      local cut = treadle.encode({ 1, 2, 3 }):sub(1, -2)
      for _, text in ipairs { "", "x", ("\255"):rep(100), cut } do
        assert.is_false((pcall(treadle.decode, text)))
      end
    end)
  end)

  describe("keeps nothing of a coroutine that", function()
    local kept = setmetatable({}, { __mode = "k" })
    local function hold()
      local held = {}
      kept[held] = true
      return held
    end
    local ways = {
      ["has ended"] = function() pool.call.echo(hold()):await() end,
      ["has failed"] = function()
        local held = hold()
        pool.call.echo(1):await()
        error("on purpose " .. #held)
      end,
      ["has failed at once"] = function()
        local held = hold()
        error("on purpose " .. #held)
      end,
      ["has settled a future"] = function()
        local f, resolve = treadle.future()
        resolve(hold())
        f:await()
      end,
    }
    for name, way in pairs(ways) do
      it(name, function()
        treadle.spawn(way):pawait()
        treadle.poll()
        require("jit").flush()
        collectgarbage()
        collectgarbage()
        assert.is_nil(next(kept))
      end)
    end

    it("waits for a future that nobody knows", function()
      treadle.spawn(function()
        local held = hold()
        treadle.future():await()
        return held
      end)
      assert.is_truthy(next(kept))
      require("jit").flush()
      collectgarbage()
      collectgarbage()
      assert.is_nil(next(kept))
    end)
  end)

  it("leaves no thread and no descriptor", function()
    pool:close(helpers.TIMEOUT)
    done()
  end)
end)
