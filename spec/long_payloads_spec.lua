--- Long payloads of workers in processes: they are written where the other side reads them.
local helpers = require "helpers"
local treadle = require "treadle"

local LONG = 2 ^ 20

--- Of every kind; the first two calls of each teach both sides that payloads are long.
local function values()
  local numbers, nested, mixed = {}, {}, { name = ("n"):rep(LONG) }
  for i = 1, LONG / 8 do
    numbers[i] = i + 0.5
  end
  for i = 1, 2000 do
    nested[i] = { i, tostring(i), { deep = { i } } }
    mixed[i] = i % 2 == 0 and ("m"):rep(i) or -i
  end
  return {
    text = ("t"):rep(LONG),
    bytes = ("\0\255"):rep(LONG / 2),
    numbers = numbers,
    nested = nested,
    mixed = mixed,
    ["just inline"] = ("i"):rep(32700),
    ["just long"] = ("l"):rep(32769),
    short = "short",
  }
end

local function open(opts)
  opts.runtime, opts.permissions = "process", "unrestricted"
  return treadle.pool("long_tasks", opts)
end

local function failure(fut)
  local ok, err = pcall(fut.await, fut)
  assert.is_false(ok)
  return err
end

describe("a long payload of a process", function()
  local pool

  local function echoes(value)
    assert.same({ value, 7 }, { pool.call.echo(value, 7):await() })
  end

  after_each(function() pool:terminate() end)

  for name, value in pairs(values()) do
    it("comes back as it went, time after time: " .. name, function()
      pool = open { threads = 1 }
      for _ = 1, 4 do
        echoes(value)
      end
    end)
  end

  it("may follow a short one, and the other way round", function()
    pool = open { threads = 1 }
    for i = 1, 20 do
      local n = i % 3 == 0 and LONG or i % 7 == 0 and 40000 or i
      assert.equal(("x"):rep(n), pool.call.text(n, "x"):await())
      assert.same({ n, "y", true }, { pool.call.weigh(("y"):rep(n)):await() })
    end
  end)

  it("may fail half way, and leaves nothing behind", function()
    pool = open { threads = 1 }
    for _ = 1, 3 do
      echoes(("x"):rep(LONG))
      local err = failure(pool.call.half(LONG))
      assert.equal("payload", err.kind)
      assert.matches("results[2]", tostring(err), 1, true)
      err = failure(pool.call.echo(("x"):rep(LONG), coroutine.create(print)))
      assert.equal("payload", err.kind)
      err = failure(pool.call.raise(LONG))
      assert.equal("task", err.kind)
      assert.equal(("e"):rep(LONG), err.message)
    end
  end)

  it("may see the end of its pool while it is written", function()
    for _, lends in ipairs { false, true } do
      pool = open { threads = 1 }
      if lends then
        echoes(("x"):rep(LONG))
      end
      local closing = setmetatable({}, { __treadle_pack = function()
        pool:close()
        return ("c"):rep(LONG)
      end })
      assert.equal("closed", failure(pool.call.echo(closing)).kind)
      assert.equal("closed", failure(pool.call.echo(closing)).kind)
    end
  end)

  it("is refused when it is longer than max_payload, each time", function()
    pool = open { threads = 1, max_payload = LONG }
    for _ = 1, 3 do
      local text = ("x"):rep(LONG - 100)
      assert.equal(text, pool.call.echo(text):await())
      assert.equal("payload", failure(pool.call.text(LONG + 1, "x")).kind)
      assert.equal("payload", failure(pool.call.echo(("x"):rep(LONG + 1))).kind)
    end
  end)

  it("waits for room that others have, and stays whole", function()
    pool = open { threads = 1, concurrency = 16, max_payload = LONG }
    for _ = 1, 5 do
      local futures = {}
      for i = 1, 16 do
        futures[i] = pool.call.text(LONG * 0.7, string.char(64 + i))
      end
      for i = 1, 16 do
        assert.equal(string.char(64 + i):rep(LONG * 0.7), futures[i]:await())
      end
    end
  end)

  it("stays whole among a hundred others of four workers", function()
    pool = open { threads = 4 }
    for round = 1, 2 do
      local futures = {}
      for i = 1, 100 do
        futures[i] = pool.call.echo(string.char(i):rep(LONG), i)
      end
      for i = 1, 100 do
        local text, number = futures[i]:await()
        assert.is_true(text == string.char(i):rep(LONG) and number == i, round .. ": " .. i)
      end
    end
  end)

  --- Calls that wait behind one that holds the only worker.
  local function queue(concurrency)
    pool = open { threads = 1, concurrency = concurrency }
    echoes(("x"):rep(LONG))
    local gate, futures = helpers.new_path(), {}
    local held = pool.call.hold(gate)
    helpers.entered(gate .. ".entered", 1)
    for i = 1, 10 do
      futures[i] = pool.call.weigh(string.char(64 + i):rep(LONG), i)
    end
    return held, gate, futures
  end

  local function comes(fut, i)
    assert.same({ LONG, string.char(64 + i), true, i }, { fut:await() })
  end

  for _, concurrency in ipairs { 1, 4, 32 } do
    it("may be cancelled before it is read, with concurrency " .. concurrency, function()
      local held, gate, futures = queue(concurrency)
      for i = 1, 10, 2 do
        futures[i]:cancel()
      end
      helpers.write(gate, "")
      held:await()
      for i = 1, 10 do
        if i % 2 == 0 then
          comes(futures[i], i)
        else
          assert.equal("cancelled", failure(futures[i]).kind)
        end
      end
      echoes(("z"):rep(LONG))
    end)

    it("goes to the next process when one dies, with concurrency " .. concurrency, function()
      pool = open { threads = 1, concurrency = concurrency }
      echoes(("x"):rep(LONG))
      local dies = pool.call.die()
      local futures = {}
      for i = 1, 10 do
        futures[i] = pool.call.weigh(string.char(64 + i):rep(LONG), i)
      end
      assert.equal("crashed", failure(dies).kind)
      for i = 1, 10 do
        local ok, err = pcall(futures[i].await, futures[i])
        assert.is_true(ok or err.kind == "crashed")
        if ok then
          comes(futures[i], i)
        end
      end
      echoes(("z"):rep(LONG))
    end)
  end
end)
