local ffi = require "ffi"
local helpers = require "helpers"
local treadle = require "treadle"

local WORKERS = 8

describe("a lock for readers and writers", function()
  local pool, lock

  setup(function() pool = treadle.pool("lock_tasks", { threads = 3 }) end)
  teardown(function() pool:close() end)
  before_each(function() lock = treadle.rwlock() end)

  local function held(way, gate)
    local entered = treadle.event()
    local f = pool.call.hold(lock, way, entered, gate)
    assert.is_true(entered:wait(helpers.TIMEOUT))
    return f
  end

  it("is had by many readers, or by one writer", function()
    local gate = treadle.event()
    local a, b = held("read", gate), held("read", gate)
    assert.is_true(lock:read_lock())
    lock:read_unlock()
    assert.is_true(lock:read_try_lock())
    lock:read_unlock()
    assert.is_false(lock:write_try_lock())
    assert.is_false(lock:write_lock(0.001))
    gate:set()
    a:await()
    b:await()
    gate:reset()
    assert.is_true(lock:write_lock())
    lock:write_unlock()
    local c = held("write", gate)
    assert.is_false(lock:write_try_lock())
    assert.is_false(lock:read_try_lock())
    assert.is_false(lock:read_lock(0.001))
    gate:set()
    c:await()
    assert.is_true(lock:write_try_lock())
    lock:write_unlock()
  end)

  it("lets no later reader overtake a writer that waits", function()
    local gate, log = treadle.event(), {}
    local reader = held("read", gate)
    local function use(way, name)
      return treadle.spawn(function() -- runs up to its wait
        lock[way .. "_lock"](lock)
        log[#log + 1] = name
        treadle.sleep(0)
        lock[way .. "_unlock"](lock)
      end)
    end
    local list = { use("write", "first"), use("read", "second"), use("write", "third") }
    assert.is_false(lock:read_try_lock())
    gate:set()
    treadle.all(list):await()
    reader:await()
    assert.same({ "first", "second", "third" }, log)
  end)

  it("lets readers in again when the writer before them gives up", function()
    local gate = treadle.event()
    local reader = held("read", gate)
    local writer = treadle.spawn(function() return lock:write_lock(0.01) end)
    local second = treadle.spawn(function()
      local ok = lock:read_lock(helpers.TIMEOUT)
      lock:read_unlock()
      return ok
    end)
    assert.is_false(writer:await())
    assert.is_true(second:await())
    gate:set()
    reader:await()
  end)

  it("is refused to whoever has it already, in either way", function()
    local message = "the rwlock is locked here already: to wait for it would have no end"
    for _, way in ipairs { "read", "write" } do
      lock[way .. "_lock"](lock)
      assert.equal(message, helpers.error_here(function() lock:read_lock() end))
      assert.equal(message, helpers.error_here(function() lock:write_lock() end))
      assert.is_false(lock:read_try_lock())
      assert.is_false(lock:write_try_lock())
      lock[way .. "_unlock"](lock)
    end
  end)

  it("is given back in the way it was taken", function()
    lock:read_lock()
    assert.equal("write_unlock: the rwlock is not held here",
      helpers.error_here(function() lock:write_unlock() end))
    lock:read_unlock()
    lock:write_lock()
    assert.equal("read_unlock: the rwlock is not held here",
      helpers.error_here(function() lock:read_unlock() end))
    lock:write_unlock()
    assert.equal("write_unlock: the rwlock is not held here",
      helpers.error_here(function() lock:write_unlock() end))
  end)

  it("read_with, write_with: pass on what the function returns or raises", function()
    assert.equal(3, lock:read_with(function(a, b) return a + b end, 1, 2))
    assert.equal(3, lock:write_with(function(a, b) return a + b end, 1, 2))
    assert.is_false(pcall(lock.read_with, lock, error, "x"))
    assert.is_false(pool.call.raise_in_with(lock, "write_with"):pawait())
    assert.is_true(lock:write_try_lock())
    lock:write_unlock()
  end)

  it("tells all readers of a writer that died, and the next writer", function()
    pool.call.leave(lock, "write"):await()
    for _ = 1, 3 do
      assert.same({ true, "abandoned" }, { pool.call.take(lock, "read"):await() })
    end
    assert.same({ true, "abandoned" }, { lock:read_try_lock() })
    lock:read_unlock()
    assert.same({ true, "abandoned" }, { lock:write_lock() })
    lock:write_unlock()
    assert.same({ true }, { pool.call.take(lock, "read"):await() })
    assert.same({ true }, { pool.call.take(lock, "write"):await() })
  end)

  it("is given back by readers that die, and the next holder is told", function()
    treadle.all({ pool.call.leave(lock, "read"), pool.call.raise(lock, "read"):catch(print) })
      :await()
    assert.same({ true, "abandoned" }, { lock:write_lock(helpers.TIMEOUT) })
    lock:write_unlock()
    assert.same({ true }, { lock:write_lock(helpers.TIMEOUT) })
    lock:write_unlock()
  end)

  it("is given back by a reader that is stopped, and the next holder is told #computing", function()
    local entered = treadle.event()
    local f = pool.call.leave_in_pcall_loop(lock, "read", entered)
    assert.is_true(entered:wait(helpers.TIMEOUT))
    assert.is_false(lock:write_lock(0.001))
    f:cancel { force = true }
    assert.same({ true, "abandoned" }, { lock:write_lock(helpers.TIMEOUT) })
    lock:write_unlock()
  end)

  it("is whole after compiled code was interrupted that used it #computing", function()
    local one = treadle.pool("lock_tasks", { threads = 1 })
    for i = 1, 10 do
      local entered = treadle.event()
      local f = one.call.flicker(lock, i % 2 == 0 and "read" or "write", entered)
      assert.is_true(entered:wait(helpers.TIMEOUT))
      treadle.sleep(0.002)
      f:cancel { force = true }
      one.call.echo():await() -- the fresh state is there
      assert.is_true((lock:write_try_lock()))
      lock:write_unlock()
    end
    one:close()
  end)

  it("guards what it is for, under eight states", function()
    local seed = os.time() % 2 ^ 20
    print("# seed " .. seed)
    local crowd = treadle.pool("lock_tasks", { threads = WORKERS })
    local pair = ffi.new("double[2]")
    local address = tonumber(ffi.cast("uintptr_t", ffi.cast("void *", pair)))
    local list, all = {}, 0
    for i = 1, WORKERS do
      list[i] = crowd:run("use_pair", { lock, address, 400, seed + i }, { worker = i })
    end
    for i = 1, WORKERS do
      local torn, writes = list[i]:await()
      assert.equal(0, torn)
      all = all + writes
    end
    crowd:close()
    assert.same({ all, all }, { pair[0], pair[1] })
    assert.is_true(all > 0)
    assert.is_true(lock:write_try_lock())
    lock:write_unlock()
  end)
end)

helpers.clean()
