--- The table: which figure stands in which row, beside which goal, limit and rival.
-- A row is `{ what, unit, value, goal, limit, rival }`. `value` is a key of the samples, or keys
-- and a function of the medians; `goal` a number or such a function; `limit` a key or such a
-- function. `unit` is "time" (s), "rate" (1/s), "bytes" or "share" (of one core); a rate is better
-- when larger, all else when smaller.
-- Goals and rivals are those of the milestone; rivals were measured on another day.
-- @module rows
local payloads = require "payloads"

local MIB = 2 ^ 20

local rows = {}
local function title(text) rows[#rows + 1] = { title = text } end
local function row(what, unit, value, fields)
  fields = fields or {}
  fields.what, fields.unit, fields.value = what, unit, value
  rows[#rows + 1] = fields
end

local goals = {
  one = { string100 = 0.8e-6, record = 2e-6, array = 15e-6, nested = 6e-6, same = 150e-6,
    fresh = 600e-6 },
  flight = { number = 5e6, record = 1.5e6, array = 150e3, nested = 300e3 },
}
local rivals = {
  one = {
    number = "Knitting 1.06 µs", string100 = "Knitting 1.6 µs", record = "Knitting 4.4 µs",
    array = "Knitting 81 µs", nested = "Knitting/Bun 16 µs", same = "lanes 271 µs",
    fresh = "Tinypool 853 µs",
  },
  flight1 = {
    number = "Go 6.3, Bun 3.7 M/s", record = "Knitting 940 k/s", array = "luv 123 k/s",
    nested = "luv 225 k/s",
  },
  flight2 = { number = "Go 5.5, love 2.5 M/s" },
}

-- What the bytes cost at best. An echo codes its value twice. A large string is written into the
-- job and read out of it on each way: interned, that is four passes over it; fresh, the caller, the
-- task and both decoders each make a string of LuaJIT's.
local function one_limit(key)
  return function(m)
    if key == "same" then return 4 * MIB / m["copy.mib"] end
    if key == "fresh" then return 4 * m.make + 2 * MIB / m["copy.mib"] end
    return m.pingpong + 2 * m["buffer." .. key]
  end
end

-- The same with both sides at work at once, each on its half.
local function flight_limit(key)
  return function(m)
    if key == "same" then return m["copy.mib"] / (2 * MIB) end
    if key == "fresh" then return 1 / (2 * m.make + MIB / m["copy.mib"]) end
    return math.min(m.ring, 1 / m["buffer." .. key])
  end
end

title "one call at a time; one worker where not said otherwise"
row("number, main chunk", "time", "one.number", {
  goal = function(m) return 2.2 * m.pingpong end, limit = "pingpong", rival = rivals.one.number,
})
row("number, in a coroutine", "time", "one.coroutine", {
  goal = function(m) return 2.2 * m.pingpong end, limit = "pingpong",
})
row("number, two workers", "time", "one.two", { limit = "pingpong" })
row("number, pinned to one core", "time", "pinned.one", {
  goal = 3e-6, limit = "handoff", rival = "love 3.2 µs",
})
for _, p in ipairs(payloads) do
  if p.key ~= "number" then
    row(p.name, "time", "one." .. p.key, {
      goal = goals.one[p.key], limit = one_limit(p.key), rival = rivals.one[p.key],
    })
  end
end

row("the same, run by the command", "time", "command.fresh", { goal = goals.one.fresh })

for threads, text in ipairs { "1,000 calls in flight, one worker", "the same, two workers" } do
  title(text)
  for _, p in ipairs(payloads) do
    local one, two = "flight1." .. p.key, "flight2." .. p.key
    local goal = goals.flight[p.key]
    if threads == 2 and goal then
      goal = function(m) return m[one] end
    end
    row(p.name .. (p.in_flight < 1000 and (" (%d)"):format(p.in_flight) or ""), "rate",
      threads == 1 and one or two, {
        goal = goal, rival = rivals["flight" .. threads][p.key],
        limit = p.key == "number" and "ring" or flight_limit(p.key),
      })
  end
end

title "encode + decode; the limit is LuaJIT's string.buffer"
for _, p in ipairs(payloads) do
  if p.value then
    local buffer = "buffer." .. p.key
    row(p.name, "time", "codec." .. p.key, {
      limit = buffer,
      goal = type(p.value) ~= "table" and #tostring(p.value) <= 100 and 40e-9
        or function(m) return m[buffer] * ((p.key == "record" or p.key == "nested") and 2 or 1) end,
    })
  end
end

title "messages between two states that run"
row("number there and back, no buffer", "time", "channel.bounce0", {
  goal = function(m) return 3 * m.pingpong end, limit = "pingpong",
})
row("the same, a buffer of 1", "time", "channel.bounce1", {
  goal = function(m) return 3 * m.pingpong end, limit = "pingpong",
})
row("100-byte string, no buffer", "time", "channel.string100", { limit = one_limit("string100") })
row("table of 10 string keys, no buffer", "time", "channel.record", {
  limit = one_limit("record"),
})
row("numbers through a buffer of 1,000", "rate", "channel.flow1000", { limit = "ring" })
row("numbers through a stream", "rate", "channel.stream", { limit = "ring" })
row("numbers through a buffer of 1", "rate", "channel.flow1", { limit = "ring" })

title "locks that nobody else has: take and give back, compiled"
row("mutex", "time", "lock.mutex", { goal = 60e-9, limit = "lock.pthread" })
row("mutex, with(fn)", "time", "lock.with", { limit = "lock.pthread" })
row("rwlock, reading", "time", "lock.read", { limit = "lock.pthread" })
row("rwlock, writing", "time", "lock.write", { limit = "lock.pthread" })
row("semaphore", "time", "lock.semaphore", { limit = "lock.pthread" })
row("mutex, by code that is not compiled", "time", "lock.interpreted")

for _, kind in ipairs { { "one", "calls that are watched, one at a time" },
  { "flight", "the same, 1,000 in flight, each" } } do
  title(kind[2])
  local limit = ("watched.%s.off"):format(kind[1])
  row("nobody watches: debug is off", "time", limit)
  row("debug, lines of jobs, to /dev/null", "time", ("watched.%s.lines"):format(kind[1]), {
    limit = limit,
  })
  row("pool:on, an event of each job", "time", ("watched.%s.events"):format(kind[1]), {
    limit = limit,
  })
  row("pool:trace, to /dev/null", "time", ("watched.%s.recorded"):format(kind[1]), {
    limit = limit,
  })
end

title "a worker in a process of its own; the limit is a thread's"
for _, p in ipairs(payloads) do
  local base = ("process.one.%s.thread"):format(p.key)
  local times = (p.key == "same" or p.key == "fresh") and 1.5 or 2
  row(p.name, "time", ("process.one.%s.process"):format(p.key), {
    goal = function(m) return times * m[base] end, limit = base,
  })
end
row("number, 1,000 in flight", "rate", "process.flight.number.process", {
  limit = "process.flight.number.thread",
})
row("made to first result, strict", "time", "process.first")

title "life of a pool"
row("made to first result, 1 worker", "time", "first1", {
  goal = 0.5e-3, limit = "thread", rival = "lanes 0.40 ms",
})
row("made to first result, 2 workers", "time", "first2", { limit = "thread" })
row("memory of a further worker", "bytes", { "resident1", fn = function(m)
  return (m.resident33 - m.resident1) / 32
end }, { goal = 260 * 1024, limit = "bare", rival = "effil 166, luv 238 KiB" })
row("64 workers start, answer, close", "time", "many64", { limit = "threads64" })
row("256 workers start, answer, close", "time", "many256", { limit = "threads256" })

title "calls with pauses: call to result, and CPU of the process"
row("idle pool of 2: CPU", "share", "idle", { goal = 0.001, rival = "lanes, luv 0.02 %" })
for _, key in ipairs { "20ms", "10ms", "1ms", "100us" } do
  local what = "a call every " .. key:gsub("us", " µs"):gsub("ms", " ms")
  local sleeping = key == "20ms" or nil
  row(what .. (sleeping and " (sleeping)" or ""), "time", "paced." .. key, {
    goal = sleeping and function(m) return 1.2 * m["futex." .. key] end,
    limit = "futex." .. key, rival = sleeping and "70 to 75 µs",
  })
  row(what .. ": CPU", "share", "paced.cpu." .. key, { limit = "futex.cpu." .. key })
end

title "when spinning could hurt"
row("number, 16 workers, one at a time", "time", "crowd.one", { limit = "pingpong" })
row("number, 16 workers, 1,000 in flight", "rate", "crowd.flight", { limit = "ring" })
row("number, pinned to one core, 1,000", "rate", "pinned.flight", { limit = "ring" })
row("busy host: lost per call", "time", "busy")
row("busy host: CPU", "share", "busy.cpu")

title "coroutines of one state"
row("spawn a coroutine, await it", "time", "spawn.await")
row("the same, in a coroutine", "time", "spawn.within")
row("spawn one that waits, wake it, await it", "time", "spawn.wait")
row("spawn one in a group", "time", "spawn.group")

title "a million calls that wait for one worker"
row("made and queued, per call", "time", "queued.call")
row("memory per call, the future included", "bytes", "queued.bytes")
row("done by close", "rate", "queued.drain")

title "beside a task that is stuck on the other of two workers"
row("jobs of 1 ms", "rate", "share.stuck", {
  goal = function(m) return 2 / 3 * m["share.alone"] end, limit = "share.alone",
})

title "parallel loops, two workers; the limit is the same loop without them"
row("pmap, 1,000 cheap items", "time", "loop.cheap", {
  goal = function(m) return 1.05 * m["loop.cheap.plain"] end, limit = "loop.cheap.plain",
})
row("pfor, 10 million doubles, computing", "time", "loop.compute", {
  goal = function(m) return m["loop.compute.plain"] / 1.8 end, limit = "loop.compute.plain",
})
row("the same, 2 x + 1: two C threads", "time", "loop.memory", {
  goal = function(m) return 1.1 * m["loop.memory.threads"] end, limit = "loop.memory.threads",
})
row("psort, 10 million doubles: C qsort", "time", "sort.two", { limit = "sort.qsort" })
row("the same, beside ours on one core", "time", { "sort.two", fn = function(m)
  return m["sort.two"]
end }, { goal = function(m) return m["sort.one"] / 1.7 end, limit = "sort.one" })

title "shared memory, each element; the limit is the same loop over ffi.new"
for _, loop in ipairs { { "sum", "buf.ptr: sum" }, { "scale", "buf.ptr: x = a * x + b" } } do
  local limit = "memory.ffi." .. loop[1]
  row(loop[2], "time", "memory.ptr." .. loop[1], {
    goal = function(m) return 1.05 * m[limit] end, limit = limit,
  })
end
row("get and set", "time", "memory.methods", { limit = "memory.ffi.scale" })
row("atomics.add", "time", "memory.atomic")
row("counter:add", "time", "memory.counter")

for _, way in ipairs { { "on", "compiled" }, { "off", "interpreted" } } do
  local mode, text = way[1], way[2]
  title("looks into a shared table, each; the limit is a plain table; " .. text)
  for _, look in ipairs {
    { "element", "t[i]" }, { "field", "t[i].field, two looks" }, { "key", "t[key]" },
    { "missing", "t[key], not there" }, { "length", "#t" }, { "pairs", "pairs, of 100" },
    { "ipairs", "ipairs, of 100" }, { "small", "pairs, of 4" },
  } do
    local plain = ("plain.%s.%s"):format(mode, look[1])
    row(look[2], "time", ("shared.%s.%s"):format(mode, look[1]), {
      goal = function(m) return 4 * m[plain] end, limit = plain,
    })
  end
  row("treadle's pairs, of a plain table of 4", "time", ("treadle.%s.small"):format(mode), {
    limit = ("plain.%s.small"):format(mode),
  })
end

for _, way in ipairs { { "on", "compiled" }, { "off", "interpreted" } } do
  title("signals; " .. way[2])
  for _, shape in ipairs {
    { "one", "set, 1 computed, 1 effect, flush" }, { "wide", "the same, 100 computed" },
    { "pull", "set, read 1 computed; unwatched" }, { "read", "read 1 computed, nothing changed" },
  } do
    row(shape[2], "time", ("signals.%s.%s"):format(way[1], shape[1]))
  end
end

title "limits of this machine, in this run"
row("cache line there and back", "time", "pingpong")
row("futex there and back, one core", "time", "handoff")
row("futex there and back, two cores", "time", "futex")
row("ring, one writer, one reader", "rate", "ring")
row("thread started and joined", "time", "thread")
row("1 MiB copied", "time", { "copy.mib", fn = function(m) return MIB / m["copy.mib"] end })
row("1 MiB string made by LuaJIT", "time", "make")
row("memcpy of 64 KiB, per s", "bytes", "copy.cache")
row("memcpy of 64 MiB, per s", "bytes", "copy.memory")

return rows
