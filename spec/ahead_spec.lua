--- Calls that wait while the processes of their pool have as many as they may: some of them lie
-- ahead of a process, in its ring. To nobody is that to make a difference.
package.path = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/support/?.lua;"
  .. package.path
local helpers = require "helpers"
local processes = require "processes"
local treadle = require "treadle"

-- More than go ahead of one process, and fewer.
local MANY, FEW = 100, 5

describe("a call that waits behind another one of a process", function()
  local done = processes.watch()
  local pool, path, gates

  before_each(function()
    path, gates = helpers.new_path(), {}
    helpers.write(path, "")
  end)

  after_each(function()
    pool:terminate()
    pool:close()
    done()
  end)

  teardown(helpers.clean)

  local function open(options)
    local o = { runtime = "process", threads = 1, permissions = "unrestricted" }
    for name, value in pairs(options or {}) do
      o[name] = value
    end
    pool = treadle.pool("ahead_tasks", o)
    return pool
  end

  --- A call that runs until its gate is opened. What is called at once goes ahead: of one that is
  -- known to be long, nothing does.
  local function hold(options)
    local gate = helpers.new_path()
    gates[#gates + 1] = gate
    return pool:run("hold", { gate }, options), function() helpers.write(gate, "open") end
  end

  --- They run by now.
  local function await_holds()
    for _, gate in ipairs(gates) do
      helpers.entered(gate .. ".entered", 1)
    end
  end

  local function notes(n, options)
    local list = {}
    for i = 1, n do
      list[i] = pool:run("note", { path, tostring(i) }, options)
    end
    await_holds()
    return list
  end

  local function numbers(from, to)
    local list = {}
    for i = from, to do
      list[#list + 1] = tostring(i)
    end
    return list
  end

  local function sorted_lines()
    local lines = helpers.lines(path)
    table.sort(lines, function(a, b) return tonumber(a) < tonumber(b) end)
    return lines
  end

  for _, n in ipairs { FEW, MANY } do
    it(("begins in its turn: of %d"):format(n), function()
      open()
      local held, release = hold()
      local list = notes(n)
      local s = pool:stats()
      assert.same({ 1, n }, { s.running, s.queued })
      assert.equal("pending", list[1]:state())
      release()
      assert.same(numbers(1, n), treadle.all(list):await())
      assert.same(numbers(1, n), helpers.lines(path))
      held:await()
    end)

    it(("does not run when it was cancelled: of %d"):format(n), function()
      open()
      local held, release = hold()
      local list, left = notes(n), {}
      for i, f in ipairs(list) do
        if i % 3 == 0 then
          f:cancel("no more")
          assert.equal("cancelled", f:state())
        else
          left[#left + 1] = tostring(i)
        end
      end
      release()
      for i, f in ipairs(list) do
        local ok, err = f:pawait()
        assert.same({ i % 3 ~= 0, i % 3 == 0 and "no more" },
          { ok, not ok and err.message })
      end
      assert.same(left, helpers.lines(path))
      held:await()
    end)

    it(("does not run when it was cancelled by force: of %d"):format(n), function()
      open()
      local held, release = hold()
      local list = notes(n)
      for i = 1, n do
        list[i]:cancel { force = true }
      end
      release()
      for _, f in ipairs(list) do
        assert.equal("cancelled", select(2, f:pawait()).kind)
      end
      assert.equal("after", pool.call.note(path, "after"):await())
      assert.same({ "after" }, helpers.lines(path))
      held:await()
    end)

    it(("does not run when all that wait are cancelled: of %d"):format(n), function()
      open()
      local held, release = hold()
      local list = notes(n)
      assert.equal(n, pool:cancel_pending("all of them"))
      release()
      for _, f in ipairs(list) do
        assert.equal("all of them", select(2, f:pawait()).message)
      end
      assert.equal("after", pool.call.note(path, "after"):await())
      assert.same({ "after" }, helpers.lines(path))
      held:await()
    end)

    it(("does not run when its pool is terminated: of %d"):format(n), function()
      open()
      hold()
      local list = notes(n)
      pool:terminate()
      for _, f in ipairs(list) do
        assert.equal("closed", select(2, f:pawait()).kind)
      end
      pool:close()
      assert.same({}, helpers.lines(path))
    end)

    it(("runs before its pool is closed: of %d"):format(n), function()
      open()
      local held, release = hold()
      local list = notes(n)
      local closing = treadle.spawn(function() pool:close() end)
      release()
      closing:await()
      assert.same(numbers(1, n), treadle.all(list):await())
      held:await()
    end)

    it(("runs once, elsewhere, when that process dies: of %d"):format(n), function()
      open()
      local pid = pool.call.pid():await()
      local held = hold()
      local list = notes(n)
      processes.kill(pid, 9)
      assert.equal("crashed", select(2, held:pawait()).kind)
      assert.same(numbers(1, n), treadle.all(list):await())
      assert.same(numbers(1, n), sorted_lines())
      assert.are_not.equal(pid, pool.call.pid():await())
    end)

    it(("is taken by a process that has none: of %d"):format(n), function()
      open { threads = 2 }
      local held, release = hold { worker = 1 }
      local other, release_other = hold { worker = 2 }
      local list = notes(n)
      release_other()
      other:await()
      treadle.all(list):await() -- while the first one computes
      assert.equal("pending", held:state())
      assert.same(numbers(1, n), sorted_lines())
      release()
      held:await()
    end)

    it(("runs in another process when its own is replaced: of %d"):format(n), function()
      open()
      local pid = pool.call.pid():await()
      local held, release = hold()
      local list = notes(n)
      local last = pool.call.pid()
      local recycled = pool:recycle()
      release()
      assert.same(numbers(1, n), treadle.all(list):await())
      assert.same(numbers(1, n), sorted_lines())
      recycled:await()
      held:await()
      assert.are_not.equal(pid, last:await())
    end)

    it(("runs when the pool becomes smaller: of %d"):format(n), function()
      open { threads = 2 }
      local a, release_a = hold { worker = 1 }
      local b, release_b = hold { worker = 2 }
      local list = notes(n)
      pool:resize(1)
      release_b()
      release_a()
      treadle.all(list):await()
      assert.same(numbers(1, n), sorted_lines())
      treadle.all({ a, b }):await()
    end)

    it(("lets one of a higher rank go first: of %d"):format(n), function()
      open()
      local held, release = hold()
      local list = notes(n)
      list[#list + 1] = pool:run("note", { path, "first" }, { priority = "high" })
      release()
      treadle.all(list):await()
      assert.equal("first", helpers.lines(path)[1])
      held:await()
    end)

    it(("lets one go first that was sent to its worker: of %d"):format(n), function()
      open()
      local held, release = hold()
      local list = notes(n)
      list[#list + 1] = pool:run("note", { path, "first" }, { worker = 1 })
      release()
      treadle.all(list):await()
      assert.equal("first", helpers.lines(path)[1])
      assert.equal(n + 1, #helpers.lines(path))
      held:await()
    end)

    it(("lets a stream be taken meanwhile: of %d"):format(n), function()
      open()
      local gate, values = helpers.new_path(), 0
      local f = pool.call.hold_and_emit(gate, 2000)
      local next_value = f:stream()
      gates[1] = gate
      local list = notes(n)
      helpers.write(gate, "open")
      for i in next_value do
        values = values + 1
        assert.equal(values, i)
      end
      assert.equal(2000, values)
      assert.same(numbers(1, n), treadle.all(list):await())
    end)

    it(("lets the first one's calls on its pool run: of %d"):format(n), function()
      open()
      local gate = helpers.new_path()
      local f = pool.call.hold_and_call(gate, path, 30)
      gates[1] = gate
      local list = notes(n)
      helpers.write(gate, "open")
      assert.equal(30, f:await())
      assert.same(numbers(1, n), treadle.all(list):await())
      assert.equal(n + 30, #helpers.lines(path))
    end)
  end

  it("does not stay behind a long one while others go past it", function()
    open { threads = 2 }
    local held, release = hold { worker = 1 }
    local other, release_other = hold { worker = 2 }
    local list, going = notes(MANY), true
    local passers = treadle.spawn(function()
      while going do
        pool.call.echo(1):await()
      end
    end)
    release_other()
    other:await()
    treadle.all(list):await()
    going = false
    passers:await()
    assert.equal("pending", held:state())
    release()
    held:await()
  end)

  it("expires there without a harm to the process", function()
    open { terminate_timeout = 0.05 }
    local pid = pool.call.pid():await()
    local held, release = hold()
    local list = notes(FEW, { timeout = 0.01 })
    local patient = notes(FEW)
    for _, f in ipairs(list) do
      assert.equal("timeout", select(2, f:pawait()).kind)
    end
    release()
    held:await()
    treadle.all(patient):await()
    assert.same(numbers(1, FEW), helpers.lines(path))
    assert.equal(pid, pool.call.pid():await())
  end)

  it("may bring what cannot wait in the ring", function()
    open()
    local held, release = hold()
    local long, buf = ("x"):rep(2 ^ 18), treadle.buffer("double", 3, { process = true })
    buf:set(1, 0.5)
    local list = {}
    for i = 1, 40 do
      list[i] = pool.call.echo(i % 4 == 0 and long or i % 4 == 1 and buf or i)
    end
    release()
    for i = 1, 40 do
      local value = list[i]:await()
      if i % 4 == 1 then
        assert.equal(0.5, value:get(1))
      else
        assert.equal(i % 4 == 0 and long or i, value)
      end
    end
    held:await()
  end)

  it("begins when it comes just as that one ends", function()
    open()
    for i = 1, 20000 do
      pool.call.echo(i)
      assert.equal(i, pool.call.echo(i):await())
    end
  end)

  it("comes and goes by the thousand, with some cancelled at any moment", function()
    open { threads = 3 }
    local list, kept = {}, 0
    for i = 1, 20000 do
      list[i] = pool.call.echo(i)
      if i % 7 == 0 then
        list[i - i % 5]:cancel()
      end
      if i % 1000 == 0 then
        treadle.sleep(0)
      end
    end
    for i, f in ipairs(list) do
      local ok, value = f:pawait()
      assert(not ok and value.kind == "cancelled" or value == i)
      kept = kept + (ok and 1 or 0)
    end
    local s = pool:stats()
    assert.same({ 0, 0, kept, 20000 - kept, 0 }, { s.queued, s.running, s.done, s.cancelled,
      s.failed })
  end)
end)
