--- Every way to end a task that waits for something shared, that was just granted it, or that holds
-- it: nothing is lost, nobody else is stuck, and who comes next is told what it must know.
--
-- What only one kind does, and ends that leave nothing open, is in that kind's spec.
local helpers = require "helpers"
local treadle = require "treadle"

local TIMEOUT = helpers.TIMEOUT

--- What is over before the test has come so far is tried again, with more time or a longer way.
local LIMITS = { 0.03, 0.3, 3 }
local SIZES = { 18, 20, 22 } -- of what is stuck in C: 50 ms, each time four times as long

--- How long a pool waits that is closed with a limit, or recycled, before it ends what runs.
local PATIENCE = 0.01
local IMPATIENT = { terminate_timeout = PATIENCE }

local CAP = 16 * 2 ^ 20

local function got(f)
  assert.is_true(f:wait(TIMEOUT), "somebody is stuck")
  return { f:await() }
end

-- --- what is waited for --------------------------------------------------------------------------
-- make(): the thing. block(thing): from now on it is waited for. go(thing): one of those who wait
-- goes on. outcome: what that one gets. whole(thing): all is there, and nobody stands in a list.
-- grant(thing): as go, where a first one gets it that will be ended; again(thing): then a second
-- one, where what the first one got does not come back.

local kinds = {}

kinds.mutex = {
  make = treadle.mutex,
  block = function(m) m:lock() end,
  go = function(m) m:unlock() end,
  outcome = { true },
  whole = function(m)
    assert.same({ true }, { m:lock(TIMEOUT) })
    m:unlock()
  end,
}

local function rwlock_is_whole(l)
  assert.same({ true }, { l:write_lock(TIMEOUT) })
  l:write_unlock()
end

kinds.read = {
  make = treadle.rwlock,
  block = function(l) l:write_lock() end,
  go = function(l) l:write_unlock() end,
  outcome = { true },
  whole = rwlock_is_whole,
}

kinds.write = {
  make = treadle.rwlock,
  block = function(l) l:read_lock() end,
  go = function(l) l:read_unlock() end,
  outcome = { true },
  whole = rwlock_is_whole,
}

kinds.semaphore = {
  make = function() return treadle.semaphore(2) end,
  block = function(s)
    s:acquire()
    s:acquire()
  end,
  go = function(s) s:release() end,
  outcome = { true },
  whole = function(s)
    s:release()
    for _ = 1, 2 do
      assert.same({ true }, { s:acquire(TIMEOUT) })
    end
    s:release()
    s:release()
  end,
}

kinds.event = {
  make = treadle.event,
  go = function(e) e:set() end,
  outcome = { true },
  whole = function(e)
    e:reset()
    assert.is_false(e:wait(0))
  end,
}

kinds.barrier = {
  make = function() return treadle.barrier(3) end,
  go = function(b) -- of three, one waits already, and no other
    local f = treadle.spawn(b.wait, b)
    assert.equal("pending", f:state())
    assert.is_true((b:wait(TIMEOUT)))
    f:await()
  end,
  grant = function(b) -- two wait
    assert.is_true((b:wait(TIMEOUT)))
  end,
  outcome = { true },
  whole = function(b)
    local f = treadle.spawn(b.wait, b)
    assert.is_false((b:wait(0)))
    local g = treadle.spawn(b.wait, b)
    assert.is_true((b:wait(TIMEOUT)))
    f:await()
    g:await()
  end,
}

local function is_empty(ch)
  assert.same({ n = 3, nil, false, "empty" }, { n = 3, ch:try_recv() })
end

local function receives(value)
  return function(ch) assert.same({ value, true }, { ch:recv(TIMEOUT) }) end
end

for _, capacity in ipairs { 0, 1 } do
  kinds["recv, capacity " .. capacity] = {
    kind = "recv",
    make = function() return treadle.channel(capacity) end,
    go = function(ch) assert.is_true(ch:send("m", TIMEOUT)) end,
    outcome = { "m", true },
    whole = is_empty,
  }
end

kinds["send, capacity 0"] = {
  kind = "send",
  make = function() return treadle.channel(0) end,
  go = receives "other",
  grant = receives "victim",
  again = receives "other",
  outcome = { true },
  whole = is_empty,
}

kinds["send, capacity 1"] = {
  kind = "send",
  make = function() return treadle.channel(1) end,
  block = function(ch) ch:send("first") end,
  go = receives "first",
  again = receives "victim",
  outcome = { true },
  whole = function(ch)
    receives "other"(ch)
    is_empty(ch)
  end,
}

local function two_channels()
  return { treadle.channel(0), treadle.channel(0) }
end

local function both_empty(two)
  for _, ch in ipairs(two) do
    is_empty(ch)
    assert.same({ false, "full" }, { ch:try_send(1) })
  end
end

kinds.select_recv = {
  make = two_channels,
  go = function(two) assert.is_true(two[2]:send("m", TIMEOUT)) end,
  -- what was put back is in the channel that it was sent to
  outcome = { 2, "m", true },
  whole = both_empty,
}

kinds.select_send = {
  make = two_channels,
  go = function(two) receives "other"(two[1]) end,
  grant = function(two) receives "victim"(two[1]) end,
  again = function(two) receives "other"(two[1]) end,
  outcome = { 1, nil, true },
  whole = both_empty,
}

kinds["atomics.wait"] = {
  kind = "atomics",
  make = function() return treadle.buffer("int32_t", 1) end,
  go = function(buf) assert.equal(1, treadle.atomics.notify(buf, 0, 1)) end,
  outcome = { "ok" },
  whole = function(buf) assert.equal(0, treadle.atomics.notify(buf, 0)) end,
}

local names = {}
for name, kind in pairs(kinds) do
  kind.kind = kind.kind or name
  names[#names + 1] = name
end
table.sort(names)

--- Those whose waits nothing else shares the code of. To be written off takes long: the others are
-- spared that.
local is_apart = {
  mutex = true, event = true, barrier = true, ["recv, capacity 0"] = true,
  ["send, capacity 0"] = true, select_recv = true, ["atomics.wait"] = true,
}

-- --- who is there --------------------------------------------------------------------------------

local others -- the pool of those who live

--- A task that has come as far as it can: its future, false if that was settled before.
local function started(f, entered)
  helpers.poll_until(function() return entered:is_set() or f:state() ~= "pending" end)
  return entered:is_set() and f
end

--- One that waits, and lives. It has come as far as that, or has it already.
local function other_waits(kind, thing)
  local entered = treadle.event()
  local f = others.call.wait(kind, thing, entered, "other")
  started(f, entered)
  return f
end

--- A pool of one worker that is to suffer.
local function open(options, concurrency)
  local new = { threads = 1, concurrency = concurrency,
    terminate_timeout = TIMEOUT } -- so long `close` waits for threads
  for k, v in pairs(options or {}) do
    new[k] = v
  end
  return treadle.pool("ends_tasks", new)
end

--- Beside the victim in its state.
local function beside(pool, name, ...)
  local entered = treadle.event()
  return started(pool.call[name](entered, ...), entered)
end

--- Force what is stuck in C to end; wait for the thread that has it, of which the pool lets go.
-- Whether it was stuck for long enough.
local function write_off(pool, stuck, threads)
  stuck:cancel { force = true }
  helpers.poll_until(function()
    return pool:stats().written_off == 1 or pool:stats().running == 0
  end)
  local is_written_off = pool:stats().written_off == 1
  helpers.poll_until(function() return helpers.threads() <= threads end)
  return is_written_off
end

--- Call `attempt` with one of them after the other until it says that it was in time.
local function try_with(list, attempt)
  for _, what in ipairs(list) do
    if attempt(what) then
      return
    end
  end
  error("it never came so far")
end

local function nothing() end

local function end_pool(pool)
  pool:terminate()
  pool:close()
end

describe("a task that is ended", function()
  local done = helpers.watch()

  setup(function()
    others = treadle.pool("ends_tasks", { threads = 3 })
    others:run("echo", {}, { timeout = TIMEOUT }):await() -- the supervisor is there
  end)

  -- --- while it waits ----------------------------------------------------------------------------
  -- `run(pool, f, what)` ends it: its outcome is `kind`, and it stands nowhere any more. Where
  -- there is a list, it is tried with each of that; false: it was not enough.

  local function echo(pool)
    pool.call.echo():await() -- in its place
  end

  local ends = {
    { name = "cancelled", kind = "cancelled", run = function(pool, f)
      f:cancel()
      echo(pool)
    end },
    { name = "cancelled by force", kind = "cancelled", run = function(pool, f)
      f:cancel { force = true }
      echo(pool)
    end },
    { name = "timed out", kind = "timeout", list = LIMITS, run = function(pool, f)
      f:wait(TIMEOUT)
      echo(pool)
    end },
    { name = "terminated", kind = "closed", run = function(pool) end_pool(pool) end },
    { name = "closed with a limit", kind = "closed",
      run = function(pool) pool:close(PATIENCE) end },
    { name = "recycled", kind = "crashed", options = IMPATIENT,
      run = function(pool) pool:recycle():await() end },
    { name = "left behind", kind = "resolved", task = "wait_behind",
      run = function(pool) pool:close() end },
    { name = "lost with its state #computing", kind = "crashed", options = { concurrency = 2 },
      run = function(pool)
        local f = beside(pool, "compute")
        f:cancel { force = true }
        assert.equal("cancelled", helpers.outcome(f))
        echo(pool) -- in the next state
      end },
    { name = "lost with its state, which asked for too much", kind = "crashed",
      options = { concurrency = 2, max_memory = CAP }, run = function(pool)
        assert.equal("memory", helpers.outcome(pool.call.hog()))
        echo(pool)
      end },
    { name = "lost with its state, which was written off", kind = "crashed",
      options = { concurrency = 2 }, list = SIZES, run = function(pool, _, size)
        local threads = helpers.threads()
        return write_off(pool, beside(pool, "stick", size), threads)
      end },
  }

  --- Has `task` of a pool of its own come as far as it can, call `with()`, and end it.
  local function end_it(one, task, kind, thing, with)
    try_with(one.list or { false }, function(what)
      local pool, entered = open(one.options), treadle.event()
      local limit = one.kind == "timeout" and what or nil
      local f = pool:run(task, { kind, thing, entered, "victim" }, { timeout = limit })
      local in_time = started(f, entered) and true
      if in_time then
        with()
        in_time = one.run(pool, f, what) ~= false
      end
      local outcome = helpers.outcome(f)
      end_pool(pool)
      if in_time then
        assert.equal(one.kind, outcome)
      end
      return in_time
    end)
  end

  for _, name in ipairs(names) do
    local k = kinds[name]
    for _, one in ipairs(ends) do
      local test = (one.list ~= SIZES or is_apart[name]) and it or nothing
      test(("while it waits is forgotten: %s, %s"):format(name, one.name), function()
        local thing, other = k.make(), nil
        local block = k.block or nothing
        block(thing)
        end_it(one, one.task or "wait", k.kind, thing, function()
          other = other or other_waits(k.kind, thing)
        end)
        k.go(thing)
        assert.same(k.outcome, got(other))
        k.whole(thing)
      end)
    end
  end

  -- --- when it was just granted what it waits for ------------------------------------------------
  -- The thread of its state is kept meanwhile, so that it cannot take it: by a task that `gate`
  -- lets go, or by one that is stuck.

  local granted = {
    { name = "cancelled", kind = "cancelled", run = function(_, f, _, gate)
      f:cancel()
      gate:set()
    end },
    { name = "cancelled by force", kind = "cancelled", run = function(_, f, _, gate)
      f:cancel { force = true }
      gate:set()
    end },
    { name = "timed out", kind = "timeout", list = LIMITS, run = function(_, f, _, gate)
      f:wait(TIMEOUT)
      gate:set()
    end },
    { name = "terminated #computing", kind = "closed", run = function(pool) end_pool(pool) end },
    { name = "recycled #computing", kind = "crashed", options = IMPATIENT,
      run = function(pool) pool:recycle():await() end },
    { name = "lost with its state #computing", kind = "crashed", run = function(_, f, keeper)
      keeper:cancel { force = true }
      f:wait(TIMEOUT)
    end },
    { name = "lost with its state, which asked for too much", kind = "crashed",
      options = { max_memory = CAP }, hogs = true, run = function(_, _, keeper, gate)
        gate:set()
        assert.equal("memory", helpers.outcome(keeper))
      end },
    { name = "lost with its state, which was written off", kind = "crashed", list = SIZES,
      sticks = true, run = function(pool, _, keeper, _, threads)
        return write_off(pool, keeper, threads)
      end },
  }

  --- A task is granted what it waits for, by `grant(thing)`, and ended before it has it; another
  -- one waits behind it: the thing, and that one's future.
  local function end_granted(one, kind, make, block, grant, wait_behind)
    local thing, other
    try_with(one.list or { false }, function(what)
      local entered, gate = treadle.event(), treadle.event()
      local pool = open(one.options, 2)
      thing = make()
      block(thing)
      local limit = one.kind == "timeout" and what or nil
      local f = pool:run("wait", { kind, thing, entered, "victim" }, { timeout = limit })
      local in_time = started(f, entered) and true
      if in_time then
        local threads = helpers.threads()
        local keeper = one.sticks and beside(pool, "stick", what)
          or beside(pool, "keep", gate, one.hogs)
        other = wait_behind(thing)
        -- not settled, or too late to leave: it stands there
        in_time = keeper and keeper:state() == "pending" and f:state() == "pending"
        if in_time then
          grant(thing)
          in_time = one.run(pool, f, keeper, gate, threads) ~= false
        end
        gate:set()
        local _ = keeper and helpers.outcome(keeper)
      end
      if in_time then
        assert.equal(one.kind, helpers.outcome(f))
      elseif other then
        other:cancel()
      end
      end_pool(pool)
      helpers.outcome(f)
      return in_time
    end)
    return thing, other
  end

  for _, name in ipairs(names) do
    local k = kinds[name]
    for _, one in ipairs(granted) do
      local test = (one.list ~= SIZES or is_apart[name]) and it or nothing
      test(("when it was just granted it takes nothing with it: %s, %s"):format(name, one.name),
        function()
          local thing, other = end_granted(one, k.kind, k.make, k.block or nothing,
            k.grant or k.go, function(thing) return other_waits(k.kind, thing) end)
          local again = k.again or nothing
          again(thing)
          assert.same(k.outcome, got(other))
          k.whole(thing)
        end)
    end
  end

  for _, order in ipairs { { 1, 2 }, { 2, 1 } } do
    it(("gives two messages back in the order of sending, cancelled %d, %d"):format(unpack(order)),
      function()
        local pool, ch = open(nil, 3), treadle.channel(0)
        local gate, list = treadle.event(), {}
        for i = 1, 2 do
          local entered = treadle.event()
          list[i] = started(pool.call.wait("recv", ch, entered), entered)
        end
        local keeper = beside(pool, "keep", gate)
        assert.is_true(ch:try_send("first"))
        assert.is_true(ch:try_send("second"))
        for _, i in ipairs(order) do
          list[i]:cancel()
        end
        gate:set()
        keeper:await()
        pool:close()
        assert.same({ "first", true }, { ch:try_recv() })
        assert.same({ "second", true }, { ch:try_recv() })
        is_empty(ch)
      end)
  end

  -- --- while it holds ----------------------------------------------------------------------------
  -- rival: the kind of who waits meanwhile, and is told. told_too: so is the next one.

  local ABANDONED = { true, "abandoned" }

  local locks = {
    mutex = { rival = "mutex", make = treadle.mutex, whole = kinds.mutex.whole },
    read = { rival = "write", make = treadle.rwlock, whole = kinds.write.whole },
    write = { rival = "read", make = treadle.rwlock, whole = function(l)
      assert.same(ABANDONED, { l:write_lock(TIMEOUT) }) -- there was no writer since
      l:write_unlock()
      kinds.write.whole(l)
    end },
    semaphore = { rival = "semaphore", make = function() return treadle.semaphore(2) end,
      block = function(s) s:acquire() end, whole = kinds.semaphore.whole },
  }

  local function cancelled(_, f) f:cancel() end
  local function forced(_, f) f:cancel { force = true } end
  local function terminated(pool) pool:terminate() end
  local function closed(pool) pool:close(PATIENCE) end
  local function recycled(pool) pool:recycle() end

  local holders = {
    { name = "raised", kind = "task", task = "hold_and_raise", run = nothing },
    { name = "cancelled", kind = "cancelled", run = cancelled },
    { name = "cancelled, in a coroutine", kind = "cancelled", task = "hold_in_coroutine",
      run = cancelled },
    { name = "cancelled by force", kind = "cancelled", run = forced },
    { name = "cancelled by force, computing #computing", kind = "cancelled",
      task = "hold_and_compute", run = forced },
    { name = "cancelled by force, catching errors #computing", kind = "cancelled",
      task = "hold_and_catch", run = forced },
    { name = "timed out", kind = "timeout", list = LIMITS, run = nothing },
    { name = "timed out, computing #computing", kind = "timeout", list = LIMITS,
      task = "hold_and_compute", run = nothing },
    { name = "terminated", kind = "closed", run = terminated },
    { name = "terminated, computing #computing", kind = "closed", task = "hold_and_compute",
      run = terminated },
    { name = "closed with a limit", kind = "closed", run = closed },
    { name = "closed with a limit, computing #computing", kind = "closed",
      task = "hold_and_compute", run = closed },
    { name = "recycled", kind = "crashed", options = IMPATIENT, run = recycled },
    { name = "recycled, computing #computing", kind = "crashed", options = IMPATIENT,
      task = "hold_and_compute", run = recycled },
    { name = "left behind", kind = "resolved", task = "hold_behind",
      run = function(pool) pool:close() end },
    { name = "one that asked for too much", kind = "memory", task = "hold_and_hog",
      options = { max_memory = CAP }, how = "string", run = nothing },
    { name = "one that asked for too much, bit by bit #computing", kind = "memory",
      task = "hold_and_hog", options = { max_memory = CAP }, how = "tables", run = nothing },
    { name = "lost with its state #computing", kind = "crashed", options = { concurrency = 2 },
      run = function(pool) beside(pool, "compute"):cancel { force = true } end },
    { name = "lost with its state, which asked for too much", kind = "crashed",
      options = { concurrency = 2, max_memory = CAP }, run = function(pool)
        assert.equal("memory", helpers.outcome(pool.call.hog()))
      end },
    { name = "lost with its state, which was written off", kind = "crashed",
      options = { concurrency = 2 }, list = SIZES, run = function(pool, _, size)
        local threads = helpers.threads()
        return write_off(pool, beside(pool, "stick", size), threads)
      end },
  }

  local lock_names = { "mutex", "read", "write", "semaphore" }

  for _, name in ipairs(lock_names) do
    local k = locks[name]
    for _, one in ipairs(holders) do
      it(("while it holds gives that back, and the next one is told: %s, %s"):format(name,
        one.name), function()
        try_with(one.list or { false }, function(what)
          local thing, entered, pool = k.make(), treadle.event(), open(one.options)
          local block = k.block or nothing
          block(thing)
          local limit = one.kind == "timeout" and what or nil
          local f = pool:run(one.task or "hold_idle", { name, thing, entered, one.how },
            { timeout = limit })
          local in_time = started(f, entered) and true
          if in_time then
            local other = other_waits(k.rival, thing)
            in_time = one.run(pool, f, what) ~= false
            if in_time then
              assert.same(ABANDONED, got(other))
              assert.equal(one.kind, helpers.outcome(f))
              k.whole(thing)
            else
              f:cancel()
              got(other)
            end
          end
          end_pool(pool)
          return in_time
        end)
      end)
    end
  end

  -- --- told of one, by another that is ended before it knows -------------------------------------
  -- A holder dies; who is granted that, and told so, is ended before it has it; who comes next is
  -- told in its place, and nobody twice.

  local heirs = {
    { name = "mutex", holder = "mutex", heir = "mutex", make = treadle.mutex,
      whole = kinds.mutex.whole },
    { name = "read, write", holder = "read", heir = "write", rival = "read", make = treadle.rwlock,
      whole = function(l)
        assert.same({ true }, { l:read_lock(TIMEOUT) })
        l:read_unlock()
        kinds.write.whole(l)
      end },
    { name = "write, read", holder = "write", heir = "read", make = treadle.rwlock,
      whole = locks.write.whole },
    { name = "semaphore", holder = "semaphore", heir = "semaphore",
      make = locks.semaphore.make, block = locks.semaphore.block, whole = kinds.semaphore.whole },
  }

  for _, k in ipairs(heirs) do
    for _, one in ipairs(granted) do
      it(("tells the next one what it was told: %s, %s"):format(k.name, one.name), function()
        local pool, holder
        local block = k.block or nothing
        local thing, other = end_granted(one, k.heir, k.make, function(new)
          local entered = treadle.event()
          if pool then -- it came too late, and tries again
            end_pool(pool)
          end
          pool = open()
          holder = started(pool.call.hold_idle(k.holder, new, entered), entered)
          block(new)
        end, function()
          holder:cancel()
          echo(pool)
        end, function(new) return other_waits(k.rival or k.heir, new) end)
        pool:close()
        assert.same(ABANDONED, got(other))
        k.whole(thing)
      end)
    end
  end

  it("leaves no thread and no descriptor", function()
    end_pool(others) -- somebody may be stuck
    done()
  end)
end)

helpers.clean()
