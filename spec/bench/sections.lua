--- The measurements. Each section runs in a process of its own, started by run.lua, and emits
-- samples under keys; rows.lua says which row shows which key. Nothing here asserts a figure.
-- @module sections
local limits = require "limits"
local payloads = require "payloads"

local sections = {}

local MIB = 2 ^ 20

--- Opens a pool of the bench's tasks that has answered on every worker.
local function open_pool(treadle, threads)
  local pool = treadle.pool("tasks", { threads = threads })
  pool:broadcast("echo", true):await()
  return pool
end

local all

--- Waits for every future of a list, whether `all` returns the results or a future of them.
local function find_all(treadle)
  return function(list)
    local got = treadle.all(list)
    if type(got) == "table" and getmetatable(got) and got.await then return got:await() end
    return got
  end
end

-- Each measured loop is compiled anew, so that no row runs on traces recorded for another.
local LOOPS = {
  one = [[
    local pool, value, make = ...
    local call = pool.call
    return function(n)
      for _ = 1, n do call.TASK(make and make() or value):await() end
    end]],
  flight = [[
    local pool, value, make, count, all = ...
    local call = pool.call
    return function(n)
      for _ = 1, n do
        local list = {}
        for i = 1, count do list[i] = call.TASK(make and make() or value) end
        all(list)
      end
    end]],
  bounce = [[
    local to, from, value = ...
    return function(n)
      for _ = 1, n do
        to:send(value)
        from:recv()
      end
    end]],
  flow = [[
    local to, lots = ...
    return function(n)
      for _ = 1, n do
        for i = 1, 1000 do to:send(i) end
      end
      to:send("lot")
      if lots:recv() ~= 1000 * n then error("messages were lost") end
    end]],
  codec = [[
    local encode, decode, value = ...
    return function(n)
      for _ = 1, n do decode(encode(value)) end
    end]],
}

local function loop(kind, payload, ...)
  return assert(loadstring((LOOPS[kind]:gsub("TASK", payload.task)), "=" .. kind))(...)
end

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

--- Runs measures in turn, round after round, so that a busy moment of the machine hits all alike.
-- A measure is `{ key, fn, per, rate }`: `fn(n)` does n turns of `per` calls, and a round's sample
-- is the median of its batches, in seconds per call or in calls per second; `after()`, if there is
-- one, is called then. Or `{ key, sample }`, where `sample()` returns it.
local function interleave(plan, emit, measures)
  local alive = {}
  local function try(m, fn)
    collectgarbage()
    local ok, err = xpcall(fn, debug.traceback)
    if not ok then
      emit(m.key, nil, err)
      alive[m] = nil
    end
  end

  -- One batch; the next one's length follows from it.
  local function batch(m)
    local n = m.n
    local start = limits.now()
    m.fn(n)
    local took = limits.now() - start
    m.n = math.max(1, math.ceil(n * math.min(4, plan.batch / took)))
    return took / n
  end

  -- Warm up: the traces are compiled, and the batches are as long as they shall be.
  for _, m in ipairs(measures) do
    alive[m] = true
    m.n = 1
    if m.fn then
      try(m, function()
        local stop = limits.now() + plan.warm
        repeat batch(m) until limits.now() >= stop
      end)
    end
  end
  for _ = 1, plan.rounds do
    for _, m in ipairs(measures) do
      if alive[m] then
        try(m, function()
          if m.sample then
            emit(m.key, m.sample())
            return
          end
          local took = {}
          local stop = limits.now() + plan.round
          repeat took[#took + 1] = batch(m) / (m.per or 1) until limits.now() >= stop
          local each = median(took)
          emit(m.key, m.rate and 1 / each or each)
          if m.after then m.after() end
        end)
      end
    end
  end
end

-- The limits that calls stand beside; measured alone and among the calls.
local function add_limits(add)
  add { key = "pingpong", sample = function() return limits.pingpong(20000) end }
  add { key = "ring", sample = function() return limits.ring(1e6) end }
  add { key = "copy.cache", sample = function() return limits.copy(64 * 1024, 500) end }
  add { key = "copy.mib", sample = function() return limits.copy(MIB, 20) end }
  add { key = "copy.memory", sample = function() return limits.copy(64 * MIB, 1) end }
  local buffer = require "string.buffer"
  for _, p in ipairs(payloads) do
    if p.value then
      add { key = "buffer." .. p.key, fn = loop("codec", p, buffer.encode, buffer.decode, p.value) }
    else
      add { key = "make", fn = function(n)
        local last -- returned, or the compiler leaves the making out
        for _ = 1, n do last = p.make() end
        return last
      end }
    end
  end
end

--- The machine without treadle.
function sections.machine(plan, emit)
  local measures = {
    { key = "handoff", sample = function() return (limits.futex(2000, true)) end },
    { key = "futex", sample = function() return (limits.futex(300, false)) end },
    { key = "thread", sample = function() return limits.threads(1) end },
  }
  add_limits(function(m) measures[#measures + 1] = m end)
  interleave(plan, emit, measures)
end

--- One call at a time and many in flight, for every payload, beside the limits of the machine.
function sections.calls(plan, emit)
  local treadle = require "treadle"
  all = find_all(treadle)
  local pools = { open_pool(treadle, 1), open_pool(treadle, 2) }
  local measures = {}
  local function add(m) measures[#measures + 1] = m end
  add_limits(add)
  for _, p in ipairs(payloads) do
    add { key = "one." .. p.key, fn = loop("one", p, pools[1], p.value, p.make) }
    if p.key == "number" then
      local body = loop("one", p, pools[1], p.value)
      add { key = "one.coroutine", fn = function(n) treadle.run(body, n) end }
      add { key = "one.two", fn = loop("one", p, pools[2], p.value) }
    end
    for threads, pool in ipairs(pools) do
      add {
        key = ("flight%d.%s"):format(threads, p.key), per = p.in_flight, rate = true,
        fn = loop("flight", p, pool, p.value, p.make, p.in_flight, all),
      }
    end
    if p.value then
      local body = loop("codec", p, treadle.encode, treadle.decode, p.value)
      add { key = "codec." .. p.key, fn = body }
    end
  end
  interleave(plan, emit, measures)
  pools[1]:close()
  pools[2]:close()
end

-- One half of the codec alone, in memory that is kept: what coding costs at best.
local function add_coding(add, key, value)
  local string_buffer = require "string.buffer"
  local written, read = string_buffer.new(), string_buffer.new()
  local bytes = string_buffer.encode(value)
  add { key = "encode." .. key, fn = function(n)
    for _ = 1, n do written:reset():encode(value) end
  end }
  add { key = "decode." .. key, fn = function(n)
    local last -- returned, or the compiler leaves the making out
    for _ = 1, n do last = read:set(bytes):decode() end
    return last
  end }
end

--- Where the time of a call goes, its two threads each on a core. The stages are those of a build
-- with stamps; any other's figures say what the stamps cost.
function sections.where(plan, emit)
  local treadle = require "treadle"
  local core = require "treadle.core"
  local where = require "where"
  all = find_all(treadle)
  for _ = 1, plan.rounds do emit("line", limits.pingpong(20000) / 2) end -- needs both cores
  local pool = open_pool(treadle, 1)
  if not (pool.call.pin(1):await() and require("tasks").pin(0)) then
    error("the stages need two cores")
  end
  local kind = core.stamps and "stamped" or "plain"
  local began = core.stamps and core.stamps()
  local last = began
  local measures, by_key = {}, {}
  local function add(m) measures[#measures + 1] = m end
  for _, p in ipairs(payloads) do by_key[p.key] = p end

  -- After a round no call is under way, and the traces hold its last ones.
  local function emit_stages(way, key)
    local stamps = core.stamps()
    local calls = where.calls(stamps, last.ticks)
    last = stamps
    local tick = (stamps.ns - began.ns) * 1e-9 / (stamps.ticks - began.ticks)
    local stages, backwards = where.stages(way, calls)
    for stage, ticks in pairs(stages) do
      emit(("%s.%s.%s"):format(way, key, stage), ticks * tick)
    end
    if way == "one" then emit("backwards", backwards / math.max(1, #calls)) end
    emit(stamps.counts, tick)
    emit("stamp", stamps.cost * 1e-9)
  end

  for _, key in ipairs(where.PAYLOADS) do
    local p = by_key[key]
    add_coding(add, key, p.value)
    for _, way in ipairs(where.WAYS) do
      local flight = way == "flight"
      add {
        key = ("%s.%s.%s"):format(kind, way, key), per = flight and 1000 or 1,
        fn = loop(way, p, pool, p.value, nil, 1000, all),
        after = core.stamps and function() emit_stages(way, key) end,
      }
    end
  end
  interleave(plan, emit, measures)
  pool:close()
end

--- The same process on one core: the hand-off is a context switch.
function sections.pinned(plan, emit)
  local treadle = require "treadle"
  all = find_all(treadle)
  if limits.cores() ~= 1 then error("the process is not pinned: taskset failed") end
  local pool = open_pool(treadle, 1)
  local number = payloads[1]
  interleave(plan, emit, {
    { key = "handoff", sample = function() return (limits.futex(2000, true)) end },
    { key = "pinned.one", fn = loop("one", number, pool, number.value) },
    {
      key = "pinned.flight", per = 1000, rate = true,
      fn = loop("flight", number, pool, number.value, nil, 1000, all),
    },
  })
  pool:close()
end

--- What is different in the command's own state: large blocks are kept.
function sections.command(plan, emit)
  local treadle = require "treadle"
  local pool = open_pool(treadle, 1)
  for _, p in ipairs(payloads) do
    if p.key == "fresh" then
      interleave(plan, emit, {
        { key = "command.fresh", fn = loop("one", p, pool, nil, p.make) },
      })
    end
  end
  pool:close()
end

--- Pools made to their first result, and many workers started, asked and closed.
function sections.life(plan, emit)
  local treadle = require "treadle"
  local function first(threads)
    local start = limits.now()
    local pool = treadle.pool("tasks", { threads = threads })
    pool.call.echo(1):await()
    local took = limits.now() - start
    pool:close()
    return took
  end
  for _, threads in ipairs { 1, 2 } do
    local key = "first" .. threads
    local ok, err = xpcall(function()
      first(threads)
      for _ = 1, 30 do
        collectgarbage()
        emit(key, first(threads))
        emit("thread", limits.threads(1))
      end
    end, debug.traceback)
    if not ok then emit(key, nil, err) end
  end
  local measures = {}
  for _, threads in ipairs { 64, 256 } do
    measures[#measures + 1] = {
      key = "many" .. threads,
      sample = function()
        local start = limits.now()
        local pool = treadle.pool("tasks", { threads = threads })
        local answers = pool:broadcast("echo", 1):await()
        local answered = limits.now()
        if #answers ~= threads then
          error(("%d of %d workers answered"):format(#answers, threads))
        end
        pool:close()
        emit("many" .. threads .. ".answer", answered - start)
        emit("many" .. threads .. ".close", limits.now() - answered)
        return limits.now() - start
      end,
    }
    measures[#measures + 1] = {
      key = "threads" .. threads, sample = function() return limits.threads(threads) end,
    }
  end
  interleave(plan, emit, measures)
end

-- Resident memory with so many workers; each count needs a fresh process.
local function resident(threads)
  return function(_, emit)
    local treadle = require "treadle"
    local pool = open_pool(treadle, threads)
    collectgarbage()
    emit("resident" .. threads, limits.resident())
    pool:close()
  end
end
sections.resident1 = resident(1)
sections.resident33 = resident(33)

--- The memory of LuaJIT states that did nothing but open their libraries.
function sections.bare(_, emit)
  local ffi = require "ffi"
  ffi.cdef [[
    void *luaL_newstate(void);
    void luaL_openlibs(void *L);
  ]]
  local before = limits.resident()
  for _ = 1, 32 do ffi.C.luaL_openlibs(ffi.C.luaL_newstate()) end
  emit("bare", (limits.resident() - before) / 32)
end

--- What a pool of two costs that nobody calls.
function sections.idle(plan, emit)
  local treadle = require "treadle"
  local pool = open_pool(treadle, 2)
  for i = 1, 1000 do pool.call.echo(i):await() end
  limits.sleep(0.3)
  for _ = 1, plan.rounds do
    local start, cpu = limits.now(), limits.cpu()
    limits.sleep(plan.idle)
    emit("idle", (limits.cpu() - cpu) / (limits.now() - start))
  end
  pool:close()
end

-- Periods of paced calls: key, seconds, calls per round.
local PACES = {
  { key = "100us", period = 100e-6, calls = 300 },
  { key = "1ms", period = 1e-3, calls = 50 },
  { key = "10ms", period = 10e-3, calls = 8 },
  { key = "20ms", period = 20e-3, calls = 6 },
}

--- Locks that nobody else has, beside the C library's own.
function sections.locks(plan, emit)
  local ffi = require "ffi"
  local treadle = require "treadle"
  ffi.cdef [[
    int pthread_mutex_lock(void *);
    int pthread_mutex_unlock(void *);
  ]]
  local function pair(take, give)
    return assert(loadstring(([[
      local lock = ...
      return function(n)
        for _ = 1, n do lock:%s() lock:%s() end
      end]]):format(take, give), "=pair"))
  end
  local mutex, rwlock, semaphore = treadle.mutex(), treadle.rwlock(), treadle.semaphore(4)
  local pthread, C = ffi.new("uint64_t[16]"), ffi.C
  local interpreted = pair("lock", "unlock")(mutex)
  jit.off(interpreted)
  local function nothing() end
  interleave(plan, emit, {
    { key = "lock.pthread", fn = function(n)
      for _ = 1, n do
        C.pthread_mutex_lock(pthread)
        C.pthread_mutex_unlock(pthread)
      end
    end },
    { key = "lock.mutex", fn = pair("lock", "unlock")(mutex) },
    { key = "lock.with", fn = function(n) for _ = 1, n do mutex:with(nothing) end end },
    { key = "lock.read", fn = pair("read_lock", "read_unlock")(rwlock) },
    { key = "lock.write", fn = pair("write_lock", "write_unlock")(rwlock) },
    { key = "lock.semaphore", fn = pair("acquire", "release")(semaphore) },
    { key = "lock.interpreted", fn = interpreted },
  })
end

--- Calls that somebody watches, beside those that nobody does.
function sections.watched(plan, emit)
  local ffi = require "ffi"
  local treadle = require "treadle"
  ffi.cdef "int open(const char *, int, ...); int dup2(int, int); int dup(int); int close(int);"
  local number
  for _, p in ipairs(payloads) do
    number = p.key == "number" and p or number
  end
  local wait_for, pools, measures = find_all(treadle), {}, {}
  local kept, null = ffi.C.dup(2), ffi.C.open("/dev/null", 1)
  ffi.C.dup2(null, 2) -- the lines
  for _, way in ipairs { "off", "lines", "events", "recorded" } do
    local pool = treadle.pool("tasks", { threads = 1, debug = { job = way == "lines" } })
    pool:broadcast("echo", true):await()
    pools[#pools + 1] = pool
    if way == "events" then
      pool:on("job_done", function() end)
    elseif way == "recorded" then
      pool:trace "/dev/null"
    end
    table.insert(measures, { key = "watched.one." .. way,
      fn = loop("one", number, pool, number.value) })
    table.insert(measures, { key = "watched.flight." .. way, per = 1000,
      fn = loop("flight", number, pool, number.value, nil, 1000, wait_for) })
  end
  interleave(plan, emit, measures)
  for _, pool in ipairs(pools) do
    pool:close()
  end
  ffi.C.dup2(kept, 2)
  ffi.C.close(kept)
  ffi.C.close(null)
end

--- The same calls to a thread and to a process, in turn.
function sections.processes(plan, emit)
  local treadle = require "treadle"
  local wait_for, pools, measures = find_all(treadle), {}, {}
  for _, runtime in ipairs { "thread", "process" } do
    local pool = treadle.pool("tasks", {
      threads = 1, runtime = runtime, permissions = "unrestricted", -- one task uses the FFI
    })
    pool:broadcast("echo", true):await()
    pools[#pools + 1] = pool
    for _, p in ipairs(payloads) do
      table.insert(measures, { key = ("process.one.%s.%s"):format(p.key, runtime),
        fn = loop("one", p, pool, p.value, p.make) })
      if p.key == "number" then
        table.insert(measures, { key = "process.flight.number." .. runtime, per = 1000, rate = true,
          fn = loop("flight", p, pool, p.value, nil, 1000, wait_for) })
      end
    end
  end
  interleave(plan, emit, measures)
  for _, pool in ipairs(pools) do
    pool:close()
  end
  local start = treadle.now()
  local pool = treadle.pool("tasks", { threads = 1, runtime = "process" })
  pool.call.echo(1):await()
  emit("process.first", treadle.now() - start)
  pool:close()
end

--- Calls with pauses between them: the worker sleeps, or spins, or should not.
function sections.paced(plan, emit)
  local treadle = require "treadle"
  local measures = {}
  for _, pace in ipairs(PACES) do
    -- A pool per pace: what a worker learns about spinning at one says nothing about the next.
    local pool = open_pool(treadle, 1)
    local call = pool.call
    local calls = pace.calls * plan.paced
    measures[#measures + 1] = {
      key = "paced." .. pace.key,
      sample = function()
        local skip = math.ceil(calls / 5) -- the spinning adapts itself
        local start, cpu, began
        local next_at = limits.now()
        local took = {}
        for i = 1 - skip, calls do
          next_at = next_at + pace.period
          start = limits.sleep_until(next_at)
          if i == 1 then began, cpu = start, limits.cpu() end
          call.echo(i):await()
          took[#took + 1] = limits.now() - start
        end
        emit("paced.cpu." .. pace.key, (limits.cpu() - cpu) / (limits.now() - began))
        for i = skip + 1, #took - 1 do emit("paced." .. pace.key, took[i]) end
        return took[#took]
      end,
    }
    measures[#measures + 1] = {
      key = "futex." .. pace.key,
      sample = function()
        local took, share = limits.futex(calls, false, pace.period)
        emit("futex.cpu." .. pace.key, share)
        return took
      end,
    }
  end
  interleave(plan, emit, measures)
end

--- More workers than cores, and a host that computes while its call is out.
function sections.spinning(plan, emit)
  local treadle = require "treadle"
  all = find_all(treadle)
  local number = payloads[1]
  local crowd, single = open_pool(treadle, 16), open_pool(treadle, 1)

  local function compute(seconds)
    local stop = limits.now() + seconds
    repeat until limits.now() >= stop
  end
  local function busy()
    local calls, lost = 200, 0
    local cpu, began = limits.cpu(), limits.now()
    for i = 1, calls do
      local start = limits.now()
      local future = single.call.echo(i)
      compute(200e-6)
      future:await()
      lost = lost + (limits.now() - start - 200e-6)
    end
    emit("busy.cpu", (limits.cpu() - cpu) / (limits.now() - began))
    return lost / calls
  end

  interleave(plan, emit, {
    { key = "pingpong", sample = function() return limits.pingpong(20000) end },
    { key = "ring", sample = function() return limits.ring(1e6) end },
    { key = "crowd.one", fn = loop("one", number, crowd, number.value) },
    {
      key = "crowd.flight", per = 1000, rate = true,
      fn = loop("flight", number, crowd, number.value, nil, 1000, all),
    },
    { key = "busy", sample = busy },
  })
  crowd:close()
  single:close()
end

--- Coroutines of one state, no pool: each is spawned, runs, and is awaited.
function sections.coroutines(plan, emit)
  local treadle = require "treadle"
  local function identity(value) return value end
  local function spawn(n)
    for i = 1, n do treadle.spawn(identity, i):await() end
  end
  local function within(n) treadle.run(spawn, n) end
  local function wait(n)
    local gate, open = treadle.future()
    local function pass() gate:await() end
    local list = {}
    for i = 1, n do list[i] = treadle.spawn(pass) end
    open()
    treadle.all(list):await()
  end
  local function group(n)
    treadle.group(function(g)
      for i = 1, n do g:spawn(identity, i) end
    end)
  end
  interleave(plan, emit, {
    { key = "spawn.await", fn = spawn },
    { key = "spawn.within", fn = within },
    { key = "spawn.wait", fn = wait },
    { key = "spawn.group", fn = group },
  })
end

--- A task that holds its worker until it is cancelled.
local function hold()
  require("treadle").sleep(1e6)
end

--- A million calls that wait behind one, and what `close` does with them.
function sections.queued(_, emit)
  local treadle = require "treadle"
  local count, done = 1e6, 0
  local pool = open_pool(treadle, 1)
  local held = pool:run(hold)
  local call = pool.call
  local function finished() done = done + 1 end
  held:catch(function() end)
  collectgarbage()
  local before, start = limits.resident(), limits.now()
  for i = 1, count do call.echo(i):and_then(finished) end
  emit("queued.call", (limits.now() - start) / count)
  collectgarbage()
  emit("queued.bytes", (limits.resident() - before) / count)
  start = limits.now()
  held:cancel()
  pool:close()
  if done ~= count then error(("%d of %d calls were done"):format(done, count)) end
  emit("queued.drain", count / (limits.now() - start))
end

--- Jobs of 1 ms on one of two workers while the other is idle, and while its task is stuck.
function sections.stuck(plan, emit)
  local treadle = require "treadle"
  local pool = open_pool(treadle, 2)
  local options, jobs, ahead = { worker = 2 }, math.ceil(plan.idle * 100), 8
  local function rate()
    local open = {}
    local start = limits.now()
    for i = 1, jobs + ahead do
      if open[i - ahead] then open[i - ahead]:await() end
      open[i] = i <= jobs and pool:run("count", { 1000000 }, options) or nil
      open[i - ahead] = nil
    end
    return jobs / (limits.now() - start)
  end
  rate()
  interleave(plan, emit, {
    { key = "share.alone", sample = rate },
    {
      key = "share.stuck",
      sample = function()
        local stuck = pool:run("endless", {}, { worker = 1 })
        limits.sleep(0.001)
        local result = rate()
        stuck:cancel { force = true }
        pool:run("echo", { 1 }, { worker = 1 }):await()
        return result
      end,
    },
  })
  pool:close()
end

-- The loops over shared memory and over the FFI's own; `n` passes over all elements.
local MEMORY_LOOPS = {
  sum = [[
    local p, count = ...
    return function(n)
      local sum = 0
      for _ = 1, n do
        for i = 0, count - 1 do sum = sum + p[i] end
      end
      return sum
    end]],
  scale = [[
    local p, count = ...
    return function(n)
      for _ = 1, n do
        for i = 0, count - 1 do p[i] = 0.5 * p[i] + 1 end
      end
    end]],
  methods = [[
    local buf, count = ...
    return function(n)
      for _ = 1, n do
        for i = 0, count - 1 do buf:set(i, 0.5 * buf:get(i) + 1) end
      end
    end]],
  atomic = [[
    local buf, count, atomics = ...
    return function(n)
      for _ = 1, n do
        for i = 0, count - 1 do atomics.add(buf, i, 1) end
      end
    end]],
  counter = [[
    local counter, count = ...
    return function(n)
      for _ = 1, n do
        for _ = 1, count do counter:add(1) end
      end
    end]],
}

--- Compiled loops over a buffer, in turn with the same over an array of the FFI's.
function sections.memory(plan, emit)
  local ffi = require "ffi"
  local treadle = require "treadle"
  local count = 4096 -- 32 KiB: the loop is measured, and not the memory
  local function body(name, ...)
    return assert(loadstring(MEMORY_LOOPS[name], "=" .. name))(...)
  end
  local shared, own = treadle.buffer("double", count), ffi.new("double[?]", count)
  local measures = {}
  for _, name in ipairs { "sum", "scale" } do
    measures[#measures + 1] = {
      key = "memory.ffi." .. name, per = count, fn = body(name, own, count),
    }
    measures[#measures + 1] = {
      key = "memory.ptr." .. name, per = count, fn = body(name, shared.ptr, count),
    }
  end
  measures[#measures + 1] = {
    key = "memory.methods", per = count, fn = body("methods", shared, count),
  }
  measures[#measures + 1] = {
    key = "memory.atomic", per = count,
    fn = body("atomic", treadle.buffer("int32_t", count), count, treadle.atomics),
  }
  measures[#measures + 1] = {
    key = "memory.counter", per = count, fn = body("counter", treadle.counter(), count),
  }
  interleave(plan, emit, measures)
end

--- Messages between two running states, there and back one at a time, and as fast as they go.
function sections.channels(plan, emit)
  local treadle = require "treadle"
  local pool = open_pool(treadle, 1)
  local measures = { { key = "pingpong", sample = function() return limits.pingpong(20000) end },
    { key = "ring", sample = function() return limits.ring(1e6) end } }
  local opened = {}
  local function bounce(key, capacity, value)
    local single = open_pool(treadle, 1)
    local to, from = treadle.channel(capacity), treadle.channel(capacity)
    single.call.bounce(to, from)
    opened[#opened + 1] = { to, single }
    measures[#measures + 1] = { key = key, fn = loop("bounce", payloads[1], to, from, value) }
  end
  bounce("channel.bounce0", 0, 42.5)
  bounce("channel.bounce1", 1, 42.5)
  for _, p in ipairs(payloads) do
    if p.key == "record" or p.key == "string100" then bounce("channel." .. p.key, 0, p.value) end
  end
  local function flow(key, capacity)
    local single = open_pool(treadle, 1)
    local to, lots = treadle.channel(capacity), treadle.channel(1)
    single.call.consume(to, lots)
    opened[#opened + 1] = { to, single }
    measures[#measures + 1] = {
      key = key, per = 1000, rate = true, fn = loop("flow", payloads[1], to, lots),
    }
  end
  flow("channel.flow1000", 1000)
  flow("channel.flow1", 1)
  local streamed = open_pool(treadle, 1)
  measures[#measures + 1] = {
    key = "channel.stream", per = 1000, rate = true, fn = function(n)
      local f, sum = streamed.call.emit(1000 * n), 0
      for v in f:stream() do
        sum = sum + v
      end
      assert(sum == 1000 * n * (1000 * n + 1) / 2)
    end,
  }
  interleave(plan, emit, measures)
  for _, pair in ipairs(opened) do
    pair[1]:close()
    pair[2]:close()
  end
  pool:close()
end

--- Parallel loops.
sections.loops = require "loops"

--- Looks into a shared table, beside a plain one.
function sections.shared(plan, emit)
  interleave(plan, emit, require("shared")(require "treadle"))
end

--- Reactive values.
function sections.signals(plan, emit)
  interleave(plan, emit, require("signals")(require "treadle"))
end

return sections
