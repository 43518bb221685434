--- Plain calls and results take a way of their own (lua/treadle/direct.lua): what goes there, what
-- does not, and that nobody can tell.
local treadle = require "treadle"

local LIMIT = 20 -- seconds for what takes a moment

--- As many rounds as it takes until a loop or function is compiled, and some.
local COMPILED = 200

describe("plain calls", function()
  local pool

  setup(function()
    pool = treadle.pool("tasks", { threads = 1 })
  end)

  teardown(function()
    pool:close()
  end)

  local function pack(...)
    return { n = select("#", ...), ... }
  end

  local function same(expected, got)
    assert.equal(expected.n, got.n)
    for i = 1, expected.n do
      if expected[i] ~= expected[i] then
        assert.is_true(got[i] ~= got[i])
      else
        assert.equal(expected[i], got[i])
        assert.equal(type(expected[i]) == "number" and 1 / expected[i],
          type(got[i]) == "number" and 1 / got[i])
      end
    end
  end

  local ARGUMENTS = {
    { "nothing", pack() },
    { "a number", pack(42.5) },
    { "minus zero", pack(-0) },
    { "not a number", pack(0 / 0) },
    { "infinity", pack(-math.huge) },
    { "a string", pack("text") },
    { "the empty string", pack("") },
    { "any bytes", pack("\0\255\n\0") },
    { "255 bytes and 256", pack(("x"):rep(255), ("y"):rep(256)) },
    { "a megabyte", pack(("z"):rep(2 ^ 20)) },
    { "booleans", pack(true, false) },
    { "nil", pack(nil) },
    { "nils in the middle and at the end", pack(nil, 1, nil) },
    { "three of them", pack(1, "two", false) },
    { "four of them", pack(1, "two", false, nil) },
    { "nine of them", pack(1, 2, 3, 4, 5, 6, 7, 8, nil) },
  }

  for _, case in ipairs(ARGUMENTS) do
    local name, arguments = case[1], case[2]
    it("carry " .. name .. " there and back", function()
      for _ = 1, COMPILED do
        same(arguments, pack(pool.call.echo(unpack(arguments, 1, arguments.n)):await()))
      end
    end)
  end

  it("and others are told apart one by one", function()
    local shape = { 1, "two", { 3 }, true, function() return 4 end }
    for i = 1, COMPILED do
      local value = shape[i % #shape + 1]
      local got = pool.call.echo(value):await()
      assert.equal(type(value), type(got))
      if type(value) == "table" then
        assert.equal(3, got[1])
      elseif type(value) ~= "function" then
        assert.equal(value, got)
      end
    end
  end)

  it("await the futures among their arguments", function()
    for i = 1, COMPILED do
      assert.equal(i, pool.call.echo(pool.call.echo(i)):await())
    end
  end)

  it("end with errors that say where", function()
    for _ = 1, COMPILED do
      local ok, err = pool.call.boom("broken"):pawait()
      assert.is_false(ok)
      assert.equal("task", err.kind)
      assert.matches("broken", err.message)
    end
  end)

  it("are refused when they are too long, and the next one is not", function()
    local small = treadle.pool("tasks", { threads = 1, max_payload = 100 })
    for i = 1, COMPILED do
      local ok, err = small.call.echo(("x"):rep(i)):pawait()
      assert.equal(i <= 96, ok)
      if not ok then
        assert.equal("payload", err.kind)
      end
    end
    assert.equal("short", small.call.echo("short"):await())
    small:close()
  end)

  it("are refused by a pool that is closed", function()
    local closed = treadle.pool("tasks", { threads = 1 })
    local echo = closed.call.echo
    assert.equal(1, echo(1):await())
    closed:close()
    for _ = 1, COMPILED do
      local ok, err = echo(1):pawait()
      assert.is_false(ok)
      assert.equal("closed", err.kind)
    end
  end)

  it("keep their order, thousands at once", function()
    local list = {}
    for i = 1, 5000 do
      list[i] = pool.call.echo(i, "x", nil)
    end
    for i = 1, 5000 do
      assert.equal(i, (list[i]:await()))
    end
  end)

  it("go on while a debugger has set a hook", function()
    local events = 0
    debug.sethook(function() events = events + 1 end, "", 100)
    local ok, err = pcall(function()
      for i = 1, COMPILED do
        assert.equal(i, pool.call.echo(i):await())
      end
    end)
    debug.sethook()
    assert.is_true(ok, err)
    assert.is_true(events > 0)
  end)

  it("may be made and awaited by a finalizer at any time", function()
    local made, settled = 0, 0
    local function litter()
      getmetatable(newproxy(true)).__gc = function()
        made = made + 1
        treadle.spawn(function()
          assert(pool.call.echo("from a finalizer"):await() == "from a finalizer")
          settled = settled + 1
        end)
        treadle.poll()
      end
    end
    collectgarbage("setpause", 101) -- see make_odd (bind/core.c)
    collectgarbage("setstepmul", 5000)
    collectgarbage() -- else the pause from before may outlast the test
    local ok, err = pcall(function()
      for i = 1, 5 * COMPILED do
        local text = "result " .. i
        litter()
        local f = pool.call.echo(text)
        litter()
        assert.equal(text, f:await())
      end
    end)
    collectgarbage("setpause", 200)
    collectgarbage("setstepmul", 200)
    assert.is_true(ok, err)
    assert.is_true(made > 0)
    local stop = treadle.now() + LIMIT
    while settled < made and treadle.now() < stop do
      treadle.poll(0.01)
    end
    assert.equal(made, settled)
  end)

  it("may be made while a finalizer closes their pool", function()
    local own = treadle.pool("tasks", { threads = 1 })
    local echo = own.call.echo
    local calling, closed = false, false
    collectgarbage("setpause", 101) -- see make_odd (bind/core.c)
    collectgarbage("setstepmul", 5000)
    local stop = treadle.now() + LIMIT
    local ok, err
    repeat
      getmetatable(newproxy(true)).__gc = function()
        if calling and not closed then
          closed = true
          own:close()
        end
      end
      calling = true
      local f = echo("text")
      calling = false
      ok, err = f:pawait()
    until closed or treadle.now() > stop
    collectgarbage("setpause", 200)
    collectgarbage("setstepmul", 200)
    assert.is_true(closed)
    assert.is_true(ok or err.kind == "closed", tostring(err))
    assert.equal("closed", select(2, own.call.echo("text"):pawait()).kind)
    own:close()
  end)
end)

describe("a coroutine that awaits one call after the other", function()
  local pool, stopped, calls

  --- Calls on without a pause until `stopped`.
  local function call_on()
    while not stopped do
      calls = calls + 1
      assert(pool.call.echo(calls):await() == calls)
    end
  end

  before_each(function()
    pool = treadle.pool("tasks", { threads = 1 })
    stopped, calls = false, 0
  end)

  after_each(function()
    pool:close()
  end)

  it("leaves the poll of a frame loop", function()
    local f = treadle.spawn(call_on)
    for _ = 1, 1000 do
      treadle.poll()
    end
    stopped = true
    assert.is_true(f:wait(LIMIT))
  end)

  it("leaves the main chunk when what that waits for is there", function()
    local f = treadle.spawn(call_on)
    for i = 1, 50 do
      assert.equal(i, pool.call.echo(i):await())
    end
    treadle.sleep(0.005)
    assert.is_false(treadle.future():wait(0.005))
    stopped = true
    assert.is_true(f:wait(LIMIT))
    assert.is_true(calls > 50)
  end)

  it("takes turns with its like", function()
    local counts = { 0, 0, 0 }
    local futures = {}
    for k = 1, #counts do
      futures[k] = treadle.spawn(function()
        while not stopped do
          counts[k] = counts[k] + 1
          assert(pool.call.echo(counts[k]):await() == counts[k])
          stopped = stopped or counts[1] + counts[2] + counts[3] > 3000
        end
      end)
    end
    treadle.all(futures):await()
    for k = 1, #counts do
      assert.is_true(counts[k] > 500)
    end
  end)

  it("lets others run that waited for the same future", function()
    local f, resolve = treadle.future()
    local caller = treadle.spawn(function()
      f:await()
      call_on()
    end)
    local other = treadle.spawn(function()
      f:await()
      stopped = true
    end)
    resolve()
    assert.is_true(other:wait(LIMIT))
    caller:await()
  end)

  it("lets the one go on that spawned it", function()
    local outer = treadle.spawn(function()
      pool.call.echo(1):await()
      local inner = treadle.spawn(call_on)
      stopped = true
      inner:await()
    end)
    outer:await()
    assert.is_true(stopped)
  end)

  it("lets others run that are ready", function()
    local f, resolve = treadle.future()
    local caller = treadle.spawn(function()
      pool.call.echo(1):await()
      resolve()
      call_on()
    end)
    treadle.spawn(function()
      f:await()
      stopped = true
    end)
    caller:await()
    assert.is_true(stopped)
  end)

  it("does not hold up a timer", function()
    local f = treadle.spawn(call_on)
    local woken = false
    treadle.spawn(function()
      treadle.sleep(0.005)
      woken, stopped = true, true
    end)
    assert.is_true(f:wait(LIMIT))
    assert.is_true(woken)
  end)
end)
