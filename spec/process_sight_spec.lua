--- What is seen of workers in processes of their own.
require "path"
local helpers = require "helpers"
local treadle = require "treadle"

local TASKS = "sight_tasks"

describe("of a worker in a process", function()
  local done, pool

  local function open(opts)
    opts = opts or {}
    opts.runtime = "process"
    opts.threads = opts.threads or 1
    opts.permissions = opts.permissions or "unrestricted"
    pool = treadle.pool(TASKS, opts)
    return pool
  end

  setup(function()
    helpers.module(TASKS, [[
      local treadle = require "treadle"
      local M = {}
      local kept = {}
      function M.echo(...) return ... end
      function M.keep(n)
        for i = 1, n do kept[i] = { i } end
      end
      function M.compute(s)
        local now = treadle.now
        local stop = now() + s
        while now() < stop do end
      end
      function M.sleep(s) treadle.sleep(s) end
      function M.used() return os.clock() end
      function M.spin(path)
        local sums = 0
        while true do
          for i = 1, 1e6 do sums = sums + i end
          local file = io.open(path)
          if file then file:close() return sums end
        end
      end
      function M.names()
        local names = {}
        for _, path in ipairs { "/proc/self/comm", "/proc/thread-self/comm" } do
          local file = assert(io.open(path))
          names[#names + 1] = file:read("*l")
          file:close()
        end
        return unpack(names)
      end
      function M.say(letter, n) print(letter:rep(n)) end
      function M.say_and_die(text)
        io.write(text)
        local ffi = require "ffi"
        ffi.cast("int *", 8)[0] = 1
      end
      function M.read() return io.read("*a") end
      function M.nap() treadle.sleep(60) end
      function M.stop()
        os.execute("kill -STOP $PPID")
        while true do end -- other threads than that which hears of it go on for a moment
      end
      function M.die() os.execute("kill -9 $PPID") end
      return M
    ]])
  end)

  before_each(function() done = false end)

  after_each(function()
    if pool and not done then pool:terminate() end
    pool = nil
  end)

  local function stats() return pool:stats().workers[1] end

  describe("pool:stats()", function()
    it("tells the heap that it has, and that of the next one", function()
      open()
      pool.call.keep(2e5):await()
      helpers.eventually(function() return stats().heap > 10e6 end)
      pool.call.die():pawait()
      pool.call.echo():await()
      helpers.eventually(function() return stats().heap < 5e6 and stats().heap > 0 end)
    end)

    it("tells its processor's time, which it has itself seen, and keeps that of those that were",
      function()
        open()
        pool.call.compute(0.02):await()
        local used = pool.call.used():await()
        local seen = stats().cpu
        assert.is_true(used > 0 and seen >= used)
        pool.call.die():pawait()
        assert.is_true(stats().cpu >= seen)
        pool.call.compute(0.02):await()
        used = pool.call.used():await()
        assert.is_true(stats().cpu >= seen + used)
        pool:close()
        done = true
        assert.is_true(stats().cpu >= seen + used)
      end)

    it("has it busy while it computes, and idle while it has nothing to do", function()
      open()
      pool.call.compute(0.02):await()
      assert.is_true(stats().busy >= 0.02)
      pool.call.sleep(0.1):await()
      local later = stats()
      assert.is_true(later.busy >= 0.02)
      assert.is_true(later.busy / later.utilisation - later.busy > 0.05) -- so long it was not
      assert.is_true(later.utilisation > 0 and later.utilisation < 1)
    end)

    it("has no more of its idle time when the next one has come", function()
      open()
      pool.call.sleep(0.05):await()
      local s = stats()
      local idle = s.busy / s.utilisation - s.busy
      pool.call.die():pawait()
      pool.call.echo():await()
      s = stats()
      assert.is_true(s.busy / s.utilisation - s.busy >= idle - 1e-6)
      assert.is_true(s.utilisation > 0 and s.utilisation < 1)
    end)
  end)

  for _, permissions in ipairs { "unrestricted", "strict" } do
    describe("pool:backtrace(), " .. permissions .. ",", function()
      --- What is seen of one worker, once there is something that fits.
      local function seen(fits)
        local found
        helpers.eventually(function()
          for _, entry in ipairs(pool:backtrace()) do
            if fits(entry) then found = entry end
          end
          return found
        end, "a stack")
        return found
      end

      it("shows the Lua functions that it is in #computing", function()
        open { permissions = permissions }
        local f = pool.call.spin("/nowhere/at/all")
        local here = TASKS .. "%.lua:%d+: in function 'M%.spin'"
        local entry = seen(function(e) return e.traceback:match(here) end)
        assert.same({ 1, "spin", "task" }, { entry.worker, entry.task, entry.what })
        assert.is_true(entry.since >= 0)
        f:cancel { force = true }
      end)

      it("shows jobs that wait, each with its own", function()
        open { permissions = permissions, concurrency = 3 }
        local naps = { pool.call.nap(), pool.call.nap() }
        local list
        helpers.eventually(function()
          list = pool:backtrace()
          return #list == 2 and list[1].waiting and list[2].waiting
        end, "two naps")
        for i = 1, 2 do
          assert.equal("nap", list[i].task)
          assert.matches("in function 'M%.nap'", list[i].traceback)
          naps[i]:cancel()
        end
      end)
    end)
  end

  describe("that does not answer", function()
    it("pool:backtrace() tells the task all the same", function()
      open { terminate_timeout = 0.05 }
      local f = pool.call.stop()
      local entry
      helpers.eventually(function()
        entry = pool:backtrace()[1]
        return entry and entry.task and not entry.traceback:match("in function")
      end, "no answer")
      assert.same({ "stop", 1 }, { entry.task, entry.worker })
      assert.is_true(entry.since >= 0)
      f:cancel { force = true }
      assert.equal(7, pool.call.echo(7):await())
      assert.same({}, pool:backtrace())
    end)
  end)

  it("pool:profile() counts its stacks #computing", function()
    open()
    local f = pool.call.spin("/nowhere/at/all")
    local count = helpers.with_limit(function(seconds)
      local profile = pool:profile(seconds)
      local found = ("\n" .. profile:folded()):match("\nspin;M%.spin [^\n]* (%d+)\n")
      return found and { tonumber(found), (profile:samples()) }
    end)
    f:cancel { force = true }
    assert.is_true(1 <= count[1] and count[1] <= count[2])
  end)

  it("pool:sethook() is refused", function()
    open()
    local err = helpers.error_here(function() pool:sethook(print, "c") end)
    assert.matches("'sethook' is not to be had of workers with runtime = \"process\"", err, 1, true)
  end)

  it("the name is its pool's, with its number", function()
    open { threads = 2, name = "a_long_name" }
    local _, f = nil, pool:run("names", {}, { worker = 2 })
    assert.same({ "a_long_na/2", "a_long_na/2" }, { f:await() })
  end)

  it("the number is in its errors", function()
    open { threads = 2 }
    local ok, err = pool:run("spin", {}, { worker = 2 }):pawait()
    assert.is_false(ok)
    assert.equal(2, err.worker)
  end)

  it("standard input is empty", function()
    open()
    assert.equal("", pool.call.read():await())
  end)

  it("lines come whole, those before its end included", function()
    local out, err, code = helpers.child("treadle", [[
      local treadle = require "treadle"
      local pool = treadle.pool("sight_tasks", { runtime = "process", threads = 1,
        permissions = "unrestricted" })
      pool.call.say("x", 200000):await()
      assert(not pool.call.say_and_die("a line\nno line"):pawait())
      pool.call.say("y", 3):await()
      pool:close()
    ]])
    assert.same({ "", 0 }, { err, code })
    assert.equal(("x"):rep(200000) .. "\na line\nyyy\n", out)
  end)
end)
