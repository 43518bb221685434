local ffi = require "ffi"
local helpers = require "helpers"
local treadle = require "treadle"

local WORKERS = 8

--- Memory that all states share, and its address as a number.
local function cells(n)
  local memory = ffi.new("double[?]", n)
  return memory, tonumber(ffi.cast("uintptr_t", ffi.cast("void *", memory)))
end

describe("a mutex", function()
  local pool, m

  setup(function()
    pool = treadle.pool("lock_tasks", { threads = 3 })
  end)
  teardown(function() pool:close() end)
  before_each(function() m = treadle.mutex() end)

  --- The one who comes next: what it is told.
  local function next_holder()
    return { pool.call.take(m, "mutex", helpers.TIMEOUT):await() }
  end

  --- A task that holds it, and the event that lets it go on.
  local function held(name, ...)
    local entered = treadle.event()
    local f = pool.call[name](m, "mutex", entered, ...)
    assert.is_true(entered:wait(helpers.TIMEOUT))
    return f
  end

  it("is locked and unlocked, and travels", function()
    assert.is_true(m:lock())
    m:unlock()
    assert.is_true(m:try_lock())
    m:unlock()
    assert.is_true(m:lock(0))
    m:unlock()
    assert.same({ true, n = 1 }, { n = select("#", m:lock(1)), true })
    m:unlock()
    assert.equal(m, pool.call.echo(m):await())
    assert.matches("^treadle.mutex: 0x%x+$", tostring(m))
  end)

  it("does the same in compiled code, also when it is taken by another state", function()
    local gate = treadle.event()
    local function run(n)
      local got = 0
      for _ = 1, n do
        if m:try_lock() then
          got = got + 1
          m:unlock()
        end
      end
      return got
    end
    assert.equal(1000, run(1000))
    local f = held("hold", gate)
    assert.equal(0, run(1000))
    gate:set()
    f:await()
    assert.equal(1000, run(1000))
    assert.error_matches(function()
      for _ = 1, 1000 do
        m:lock()
        m:unlock()
      end
      m:unlock()
    end, "unlock: the mutex is not held here")
  end)

  it("is refused to whoever has it already, and says so", function()
    m:lock()
    local message = "the mutex is locked here already: to wait for it would have no end"
    assert.equal(message, helpers.error_here(function() m:lock() end))
    assert.equal(message, helpers.error_here(function() m:lock(0.1) end))
    assert.equal(message, helpers.error_here(function() m:with(print) end))
    assert.is_false(m:try_lock())
    m:unlock()
    assert.same({ true }, next_holder())
  end)

  it("is unlocked by nobody but its holder", function()
    local message = "unlock: the mutex is not held here"
    assert.equal(message, helpers.error_here(function() m:unlock() end))
    local gate = treadle.event()
    local f = held("hold", gate)
    assert.equal(message, helpers.error_here(function() m:unlock() end))
    gate:set()
    f:await()
    m:lock()
    assert.is_false((treadle.spawn(function() m:unlock() end):pawait()))
    m:unlock()
    assert.equal(message, helpers.error_here(function() m:unlock() end))
  end)

  it("tells coroutines of one state apart", function()
    local log = {}
    local function use(name)
      m:lock()
      log[#log + 1] = name .. " in"
      treadle.sleep(0.002)
      log[#log + 1] = name .. " out"
      m:unlock()
    end
    treadle.all({ treadle.spawn(use, "a"), treadle.spawn(use, "b"), treadle.spawn(use, "c") })
      :await()
    assert.same({ "a in", "a out", "b in", "b out", "c in", "c out" }, log)
  end)

  it("held by a coroutine that the script made is the maker's, also behind a wait", function()
    assert.equal("done", pool.call.in_own_coroutine(m, "mutex"):await())
    m:lock()
    local f = pool.call.in_own_coroutine(m, "mutex")
    assert.is_false(f:wait(0.01))
    m:unlock()
    assert.equal("done", f:await())
    local done, resolve = treadle.future()
    coroutine.wrap(function()
      m:lock()
      treadle.sleep(0.001)
      m:unlock()
      resolve("here")
    end)()
    assert.equal("here", done:await())
    assert.same({ true }, next_holder())
  end)

  it("checks what it is given", function()
    assert.equal("bad argument #1 to 'lock' (number expected, got string)",
      helpers.error_here(function() m:lock("x") end))
    assert.equal("bad argument #1 to 'with' (function expected, got nil)",
      helpers.error_here(function() m:with() end))
    assert.equal("bad argument #1 to 'with' (mutex expected, got function): call it with a colon",
      helpers.error_here(function() m.with(function() end) end))
    for _, name in ipairs { "lock", "try_lock", "unlock", "close" } do
      assert.equal(("bad argument #1 to '%s' (mutex expected, got table): call it with a colon")
        :format(name), helpers.error_here(function() m[name]({}) end))
    end
    local e = treadle.event()
    assert.equal("bad argument #1 to 'lock' (mutex expected, got userdata): call it with a colon",
      helpers.error_here(function() m.lock(e) end))
  end)

  it("is had by who waited for it, though its handles are gone by then", function()
    local other, entered, gate = treadle.pool("lock_tasks", { threads = 1 }), treadle.event(),
      treadle.event()
    local holder = other.call.hold(m, "mutex", entered, gate)
    assert.is_true(entered:wait(helpers.TIMEOUT))
    local granted, done = treadle.event(), treadle.event()
    local waiter = treadle.spawn(function()
      local ok = m:lock()
      granted:set()
      done:wait()
      return ok -- and still holds it
    end)
    m:close()
    gate:set()
    holder:await()
    other:close()
    granted:wait()
    done:set()
    assert.is_true(waiter:await())
  end)

  it("gives up waiting when the time is over", function()
    local gate = treadle.event()
    local f = held("hold", gate)
    assert.is_false(m:lock(0))
    assert.is_false(m:lock(0.001))
    assert.is_false(treadle.run(function() return m:lock(0.001) end))
    assert.same({ false, n = 2 }, { n = 2, pool.call.take(m, "mutex", 0.001):await() })
    gate:set()
    f:await()
    assert.same({ true }, next_holder())
  end)

  it("is had in the order of coming", function()
    local memory, address = cells(6)
    local entered, list = treadle.event(), {}
    local first = treadle.pool("lock_tasks", { threads = 5 })
    m:lock()
    for i = 1, 5 do
      list[i] = first.call.note_turn(m, "mutex", entered, address, i)
      assert.is_true(entered:wait(helpers.TIMEOUT))
      entered:reset()
    end
    m:unlock()
    treadle.all(list):await()
    first:close()
    assert.same({ 1, 2, 3, 4, 5 }, { memory[1], memory[2], memory[3], memory[4], memory[5] })
  end)

  it("with: passes arguments, results and errors on, and unlocks", function()
    assert.same({ 1, nil, 3, n = 3 }, { n = select("#", m:with(function(...) return ... end, 1, nil,
      3)), m:with(function(...) return ... end, 1, nil, 3) })
    local value = {}
    local ok, err = pcall(m.with, m, function() error(value) end)
    assert.is_false(ok)
    assert.equal(value, err)
    assert.is_false(pool.call.raise_in_with(m, "with"):pawait())
    assert.same({ true }, next_holder())
  end)

  it("with: waits, and tells of a holder that died", function()
    pool.call.leave(m, "mutex"):await()
    assert.same({ 7, "abandoned" }, { m:with(function(...) return ... end, 7) })
    assert.same({ 7 }, { m:with(function(...) return ... end, 7) })
  end)

  it("counts right under eight states", function()
    local seed = os.time() % 2 ^ 20
    print("# seed " .. seed)
    local crowd = treadle.pool("lock_tasks", { threads = WORKERS })
    local memory, address = cells(1)
    local list, sum = {}, 0
    for i = 1, WORKERS do
      list[i] = crowd:run("count_up", { m, address, 2000, seed + i }, { worker = i })
    end
    for i = 1, WORKERS do
      sum = sum + list[i]:await()
    end
    assert.equal(sum, memory[0])
    assert.is_true(sum > WORKERS * 1000)
    list = {}
    for i = 1, WORKERS do
      list[i] = crowd:run("count_in_coroutines", { m, address, 20 }, { worker = i })
    end
    treadle.all(list):await()
    assert.equal(sum + WORKERS * 4 * 20, memory[0])
    crowd:close()
    assert.same({ true }, { m:lock() })
    m:unlock()
  end)

  it("is used in nested calls", function()
    assert.equal(15, pool.call.nested(m, "mutex", 5):await())
    assert.same({ true }, next_holder())
  end)

  -- --- holders that die ----------------------------------------------------

  it("is given back by a task that returns or raises, and the next holder is told", function()
    assert.equal("left", pool.call.leave(m, "mutex"):await())
    assert.same({ true, "abandoned" }, next_holder())
    assert.same({ true }, next_holder())
    assert.is_false(pool.call.raise(m, "mutex"):pawait())
    assert.same({ true, "abandoned" }, { m:lock() })
    m:unlock()
    assert.equal("left", pool.call.leave(m, "mutex"):await())
    assert.same({ true, "abandoned" }, { m:try_lock() })
    m:unlock()
    assert.same({ true }, { m:try_lock() })
    m:unlock()
  end)

  it("is given back by a coroutine that ends, here and in a task", function()
    treadle.spawn(function() m:lock() end):await()
    assert.same({ true, "abandoned" }, { m:lock() })
    m:unlock()
    treadle.spawn(function()
      treadle.sleep(0.001)
      m:lock()
      error("x")
    end):pawait()
    assert.same({ true, "abandoned" }, next_holder())
    pool.call.leave_in_coroutine(m, "mutex"):await()
    assert.same({ true, "abandoned" }, next_holder())
    assert.same({ true }, next_holder())
  end)

  it("is given back by a coroutine that nobody can resume any more", function()
    treadle.spawn(function()
      m:lock()
      treadle.future():await()
    end)
    assert.is_false(m:try_lock())
    helpers.poll_until(function()
      require("jit").flush()
      collectgarbage()
      local ok, state = m:try_lock()
      assert.is_true(not ok or state == "abandoned")
      return ok
    end)
    m:unlock()
    local one = treadle.pool("lock_tasks", { threads = 1 })
    one.call.drop_coroutine(m, "mutex"):await()
    assert.is_false(m:try_lock())
    helpers.poll_until(function()
      one.call.collect():await()
      return (m:try_lock())
    end)
    m:unlock()
    one:close()
  end)

  it("is given back by a guest, which the host runs", function()
    local own = treadle.pool("lock_tasks", { threads = 1, inline = true })
    for _ = 1, 10 do
      treadle.all({ own.call.leave(m, "mutex"), own.call.leave(m, "mutex") }):await()
    end
    assert.same({ true, "abandoned" }, next_holder())
    own:close()
  end)

  it("passes to who waits when its holder dies #computing", function()
    local gate = treadle.event()
    local f = held("leave_in_pcall_loop")
    local g = pool.call.take(m, "mutex")
    assert.is_false(g:wait(0.01))
    f:cancel { force = true }
    assert.same({ true, "abandoned" }, { g:await() })
    gate:set()
  end)

  it("is given back by a task that is timed out in a loop without an end #computing", function()
    local f = helpers.with_limit(function(seconds)
      local entered = treadle.event()
      local f = pool:run("leave_in_pcall_loop", { m, "mutex", entered }, { timeout = seconds })
      helpers.poll_until(function() return entered:is_set() or f:state() ~= "pending" end)
      return entered:is_set() and f
    end)
    assert.same({ true, "abandoned" }, { m:lock(helpers.TIMEOUT) })
    m:unlock()
    assert.equal("timeout", select(2, f:pawait()).kind)
  end)

  it("is whole after compiled code was interrupted that locks and unlocks #computing",
    function()
      local one = treadle.pool("lock_tasks", { threads = 1 })
      for _ = 1, 20 do
        local entered = treadle.event()
        local f = one.call.flicker(m, "mutex", entered)
        assert.is_true(entered:wait(helpers.TIMEOUT))
        treadle.sleep(0.002)
        f:cancel { force = true }
        one.call.echo():await() -- the fresh state is there
        assert.is_true((m:try_lock()))
        m:unlock()
        assert.is_true(m:try_lock())
        m:unlock()
      end
      one:close()
    end)

  it("is given back by a pool that is terminated, with who waits there #computing", function()
    local other = treadle.pool("lock_tasks", { threads = 2 })
    local entered = treadle.event()
    local f = other.call.leave_in_pcall_loop(m, "mutex", entered)
    assert.is_true(entered:wait(helpers.TIMEOUT))
    local g = other.call.take(m, "mutex")
    local h = pool.call.take(m, "mutex")
    assert.is_false(g:wait(0.01))
    other:terminate()
    assert.same({ true, "abandoned" }, { h:await() })
    other:close()
    assert.equal("closed", select(2, f:pawait()).kind)
    assert.equal("closed", select(2, g:pawait()).kind)
    assert.same({ true }, next_holder())
  end)

  it("is given back by a state that ends with what tasks have left behind", function()
    local other = treadle.pool("lock_tasks", { threads = 1 })
    assert.equal("left behind", other.call.leave_behind(m, "mutex"):await())
    assert.is_false(m:try_lock())
    other:recycle():await()
    assert.same({ true, "abandoned" }, { m:lock(helpers.TIMEOUT) })
    m:unlock()
    assert.equal("left behind", other.call.leave_behind(m, "mutex"):await())
    other:terminate()
    assert.same({ true, "abandoned" }, { m:lock(helpers.TIMEOUT) })
    m:unlock()
    other:close()
    other = treadle.pool("lock_tasks", { threads = 1, data = m, init = "lock_data" })
    assert.is_false(m:try_lock())
    other:close()
    assert.same({ true, "abandoned" }, { m:lock() })
    m:unlock()
  end)

  it("granted to a state that is lost goes to the next, who is not told #computing", function()
    local other = treadle.pool("lock_tasks", { threads = 1, concurrency = 2 })
    local memory, address = cells(2)
    local entered, again = treadle.event(), treadle.event()
    m:lock()
    local f = other.call.note_turn(m, "mutex", entered, address, 1)
    assert.is_true(entered:wait(helpers.TIMEOUT)) -- it waits
    local g = other.call.leave_in_pcall_loop(treadle.mutex(), "mutex", again)
    assert.is_true(again:wait(helpers.TIMEOUT))
    m:unlock()
    assert.is_false(m:try_lock()) -- it is the other's, who does not know yet
    g:cancel { force = true }
    assert.same({ true }, { m:lock(helpers.TIMEOUT) })
    m:unlock()
    assert.equal("crashed", select(2, f:pawait()).kind)
    assert.equal(0, memory[0])
    other:close()
  end)

  it("granted in the moment in which the time is over is had", function()
    local f = treadle.spawn(function()
      m:lock()
      treadle.sleep(0.002)
      m:unlock()
    end)
    local g = treadle.spawn(function()
      local ok, state = m:lock(0.002)
      m:unlock()
      return ok, state
    end)
    local stop = treadle.now() + 0.01
    repeat until treadle.now() > stop -- both timers are due; the holder's was first
    assert.same({ true }, { g:await() })
    f:await()
    assert.same({ true }, next_holder())
  end)

  it("stays with a thread that is stuck in C until that ends", function()
    local other = treadle.pool("lock_tasks", { threads = 1 })
    local entered = treadle.event()
    local f = other.call.stick(m, "mutex", entered, 20)
    assert.is_true(entered:wait(helpers.TIMEOUT))
    f:cancel { force = true }
    helpers.poll_until(function() return other:stats().written_off == 1 end, "written off")
    local ok, state = m:lock(helpers.TIMEOUT)
    assert.same({ true, "abandoned" }, { ok, state })
    m:unlock()
    other:close()
  end)

  it("ends the wait of a task that is cancelled, and nobody else's", function()
    local gate = treadle.event()
    local f = held("hold", gate)
    local g, h = pool.call.take(m, "mutex"), pool.call.take(m, "mutex")
    assert.is_false(h:wait(0.01))
    g:cancel()
    gate:set()
    f:await()
    assert.same({ true }, { h:await() })
    assert.equal("cancelled", select(2, g:pawait()).kind)
    assert.same({ true }, next_holder())
  end)

  it("is not lost when it is granted to a task that is being cancelled", function()
    for i = 1, 200 do
      local gate = treadle.event()
      local f = held("hold", gate)
      local g = pool.call.take(m, "mutex")
      if i % 2 == 0 then
        treadle.sleep(0)
      end
      gate:set()
      g:cancel()
      f:await()
      local ok, state = m:lock(helpers.TIMEOUT)
      assert.is_true(ok)
      assert.is_nil(state)
      m:unlock()
    end
  end)

  it("stays locked when its handle goes, till its holder ends", function()
    m:lock()
    assert.equal("the mutex is held in this state: give it back before you close it",
      helpers.error_here(function() m:close() end))
    m:unlock()
    m:close()
    m:close()
    assert.equal("the mutex is closed", helpers.error_here(function() m:lock() end))
    assert.equal("the mutex is closed", helpers.error_here(function() m:try_lock() end))
    assert.equal("the mutex is closed", helpers.error_here(function() m:unlock() end))
    assert.equal("the mutex is closed", helpers.error_here(function() m:with(print) end))

    local weak, gate, f = setmetatable({}, { __mode = "v" }), treadle.event(), nil
    local s = treadle.spawn(function()
      local lock = treadle.mutex()
      weak[1] = lock
      lock:lock()
      f = pool.call.take(lock, "mutex")
      lock = nil -- luacheck: ignore
      gate:wait()
    end)
    helpers.poll_until(function()
      require("jit").flush()
      collectgarbage()
      return weak[1] == nil
    end, "the handle is collected")
    assert.is_false(f:wait(0.01))
    gate:set()
    s:await()
    assert.same({ true, "abandoned" }, { f:await() })

    gate:reset()
    s = treadle.spawn(function() -- the holder alone has it
      local lock = treadle.mutex()
      weak[1] = lock
      lock:lock()
      lock = nil -- luacheck: ignore
      gate:wait()
    end)
    helpers.poll_until(function()
      require("jit").flush()
      collectgarbage()
      return weak[1] == nil
    end, "the handle is collected")
    gate:set()
    s:await()
  end)

  it("is given back by a state that is closed", function()
    local out, err, code = helpers.child("luajit", [[
      local treadle = require "treadle"
      local m = treadle.mutex()
      m:lock()
      local pool = treadle.pool("lock_tasks", { threads = 1 })
      local f = pool.call.take(m, "mutex")
      f:wait(0.01)
      print(f:state())
    ]])
    assert.same({ "pending\n", "", 0 }, { out, err, code })
  end)
end)

helpers.clean()
