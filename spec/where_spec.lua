--- The bench's page of stages (spec/bench/where.lua): from stamps to calls, to stages, to lines.
-- That the page is measured and printed is shown by spec/bench/where_spec.lua, which needs a build
-- of its own.
package.path = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/bench/?.lua;"
  .. package.path
local where = require "where"

--- The points by number, from where C has them.
local function points()
  local file = assert(io.open("src/base/stamp.h", "rb"))
  local list = {}
  for name in file:read("*a"):gmatch('X%([%u_]+, "(%l+)"%)') do list[#list + 1] = name end
  file:close()
  return list
end

--- A thread's trace of { ticks, job, point } stamps.
local function trace(list)
  local numbers, flat = {}, {}
  for i, name in ipairs(points()) do numbers[name] = i end
  for _, stamp in ipairs(list) do
    flat[#flat + 1], flat[#flat + 2] = stamp[1], stamp[2]
    flat[#flat + 1] = assert(numbers[stamp[3]], stamp[3])
  end
  return flat
end

local function stamps(...)
  local all = { points = points() }
  for i, list in ipairs { ... } do all[i] = trace(list) end
  return all
end

-- What each stage of the calls below takes, in their order.
local TICKS = { 3, 5, 2, 40, 4, 6, 7, 8, 3, 50, 9, 10, 15 }
local PERIOD = 162

--- Adds a call that begins at `t` to both threads' stamps.
local function add_call(host, worker, t, job)
  local names = points()
  for i, name in ipairs(names) do
    local list = name:match "^[tsdra]" and name ~= "received" and name ~= "reported" and worker
      or host
    list[#list + 1] = { t, name == "begun" and 0 or job, name }
    t = t + TICKS[i]
  end
end

local function calls_in_turn(n)
  local host, worker = {}, {}
  for i = 1, n do add_call(host, worker, 1000 + PERIOD * i, 64) end
  return host, worker
end

describe("the stages of calls:", function()
  it("each point of the build has its place", function()
    assert.equal(13, #points())
    local host, worker = calls_in_turn(1)
    assert.same({ 7, 6 }, { #host, #worker })
  end)

  it("one call at a time, each stage is the time from point to point", function()
    local calls = where.calls(stamps(calls_in_turn(8)), 0)
    assert.equal(8, #calls)
    local stages, backwards = where.stages("one", calls)
    assert.equal(0, backwards)
    local sum = 0
    for i, stage in ipairs(where.STAGES.one) do
      assert.equal(TICKS[i], stages[stage.key], stage.key)
      sum = sum + stages[stage.key]
    end
    assert.equal(PERIOD, sum)
  end)

  it("the order of the threads' traces does not matter", function()
    local host, worker = calls_in_turn(3)
    assert.same(where.calls(stamps(host, worker), 0), where.calls(stamps(worker, host), 0))
  end)

  it("in flight, a side's first stage begins where it left the call before", function()
    local host, worker = {}, {}
    for i = 0, 4 do -- made one after the other, done at 1000, received at 2000
      local job, t = 64 * (i + 1), 100 * i
      for k, name in ipairs { "begun", "encoded", "made", "pushed" } do
        host[#host + 1] = { t + k, name == "begun" and 0 or job, name }
      end
      t = 1000 + 50 * i
      for k, name in ipairs { "taken", "started", "decoded", "ran", "answered", "sent" } do
        worker[#worker + 1] = { t + k, job, name }
      end
    end
    for i = 0, 4 do
      for k, name in ipairs { "received", "opened", "reported" } do
        host[#host + 1] = { 2000 + 10 * i + k, 64 * (i + 1), name }
      end
    end
    local calls = where.calls(stamps(host, worker), 0)
    assert.equal(5, #calls)
    local stages = where.stages("flight", calls)
    assert.same({ 97, 1, 1, 1, 8, 1, 1 }, {
      stages.loop, stages.encode, stages.make, stages.push, stages.receive, stages.open,
      stages.report,
    })
    assert.same({ 45, 1, 1, 1, 1, 1 }, {
      stages.take, stages.start, stages.decode, stages.run, stages.answer, stages.send,
    })
    assert.same({}, { stages.rest, stages.idle })
  end)

  it("a call whose last stamp is not there yet is left out, and shifts no other", function()
    local host, worker = calls_in_turn(6)
    assert.equal("sent", table.remove(worker)[3])
    local calls = where.calls(stamps(host, worker), 0)
    assert.equal(5, #calls)
    local stages, backwards = where.stages("one", calls)
    assert.equal(0, backwards)
    assert.equal(40, stages.over)
  end)

  it("what a trace has overwritten is left out on both sides", function()
    local host, worker = calls_in_turn(6)
    for _ = 1, 9 do table.remove(host, 1) end -- in the second call
    local calls = where.calls(stamps(host, worker), 0)
    assert.equal(4, #calls)
    assert.equal(50, (where.stages("one", calls)).back)
  end)

  it("calls of an earlier measure are left out", function()
    local host, worker = calls_in_turn(6)
    assert.equal(2, #where.calls(stamps(host, worker), 1000 + PERIOD * 5))
  end)

  it("a point that is passed twice counts the first time", function()
    local host, worker = {}, {}
    for i = 1, 4 do
      add_call(host, worker, 1000 + PERIOD * i, 64)
      local n = #host
      table.insert(host, n - 6 + 1, { host[n - 6][1] + 1, 0, "begun" })
      table.insert(host, n - 1 + 1, { host[n - 1][1] + 12, 64, "received" })
    end
    local stages = where.stages("one", where.calls(stamps(host, worker), 0))
    assert.equal(TICKS[1], stages.encode)
    assert.equal(TICKS[10], stages.back)
  end)

  it("who is handed a job may take it before the push has returned", function()
    local host, worker = {}, {}
    for i = 1, 4 do
      add_call(host, worker, 1000 + PERIOD * i, 64)
      host[#host - 3][1] = worker[#worker - 5][1] + 30 -- pushed, taken
      worker[#worker][1] = host[#host - 2][1] + 30 -- sent, received
    end
    local stages, backwards = where.stages("one", where.calls(stamps(host, worker), 0))
    assert.equal(0, backwards)
    assert.same({ TICKS[3] + TICKS[4], 0 }, { stages.push, stages.over })
    assert.same({ TICKS[9] + TICKS[10], 0 }, { stages.send, stages.back })
  end)

  it("slow and fast calls do not count", function()
    local host, worker = {}, {}
    local t = 1000
    for i = 1, 12 do
      local late = i % 4 == 0 and 5000 or 0
      local h, w = {}, {}
      add_call(h, w, t, 64)
      t = t + PERIOD + late
      for _, stamp in ipairs(w) do worker[#worker + 1] = { stamp[1] + late, stamp[2], stamp[3] } end
      for k, stamp in ipairs(h) do
        host[#host + 1] = { stamp[1] + (k > 4 and late or 0), stamp[2], stamp[3] }
      end
    end
    assert.equal(40, (where.stages("one", where.calls(stamps(host, worker), 0))).over)
  end)

  it("counters that differ are seen", function()
    local host, worker = calls_in_turn(8)
    for _, stamp in ipairs(worker) do stamp[1] = stamp[1] - 60 end
    local _, backwards = where.stages("one", where.calls(stamps(host, worker), 0))
    assert.equal(8, backwards)
    assert.matches("differ", where.doubt("", backwards / 8))
    assert.is_nil(where.doubt(" tsc constant_tsc nonstop_tsc ", 0))
    assert.matches("nonstop_tsc", where.doubt(" tsc constant_tsc", 0))
    assert.matches("constant_tsc", where.doubt(" tsc nonconstant_tsc nonstop_tsc", 0))
  end)

  it("a build without stamps has none", function()
    assert.is_nil(require("treadle.core").stamps)
  end)
end)

describe("the page of stages", function()
  local function figures()
    local m = { line = 60e-9, stamp = 10e-9 }
    for _, payload in ipairs(where.PAYLOADS) do
      m["encode." .. payload], m["decode." .. payload] = 3e-9, 4e-9
      for _, way in ipairs(where.WAYS) do
        m[("stamped.%s.%s"):format(way, payload)] = 200e-9
        m[("plain.%s.%s"):format(way, payload)] = 150e-9
        for i, stage in ipairs(where.STAGES[way]) do
          if stage.fn then m[("%s.%s.%s"):format(way, payload, stage.key)] = (10 + i) * 1e-9 end
        end
      end
    end
    return m
  end

  it("has every stage, and its shares are those of one whole", function()
    local text = table.concat(where.lines(figures()), "\n")
    assert.matches("host   push%s+3%.0%s+2%.7%s+%-", text) -- 3 of 1 + ... + 13 + 2 stamps
    assert.matches("hand over%s+14%.0%s+12%.6%s+60%.0", text)
    assert.matches("sum of the stages%s+111%s+111%s+111%s+111\n", text)
    assert.matches("the stamps cost%s+50%.0", text)
    -- 150 - (1 + ... + 7) and 150 - (9 + ... + 14)
    assert.matches("host   waits, and the rest%s+122%s+81%.3%s+%-", text)
    assert.matches("worker waits, and the rest%s+81%.0%s+54%.0%s+%-", text)
  end)

  it("takes off no more for a stamp than a stage is long", function()
    local m = figures()
    m["one.number.run"] = 9e-9
    assert.matches("worker run%s+0%.0%s+0%.0%s+%-%s+7%.0", table.concat(where.lines(m), "\n"))
  end)

  it("leaves out what was not measured", function()
    local m = figures()
    m["one.record.run"], m["plain.one.number"], m.line = nil, nil, nil
    local text = table.concat(where.lines(m), "\n")
    assert.matches("worker run%s+7%.0%s+6%.3%s+%-%s+7%.0%s+6%.3%s+%-%s+%-%s+%-%s+%-%s+7%.0", text)
    assert.matches("hand over%s+14%.0%s+12%.6%s+%-", text)
    assert.matches("the stamps cost%s+%-%s+50%.0", text)
  end)

  it("takes the best sample of what leaves nothing out, and else the median", function()
    local samples = { 3, 1, 2, 5, 9 }
    for _, key in ipairs { "line", "encode.number", "plain.one.number", "stamped.flight.record" } do
      assert.equal(1, where.figure(key, samples), key)
    end
    assert.equal(3, where.figure("one.number.encode", samples))
    assert.equal(3, where.figure("backwards", samples))
  end)

  it("goes with no JSON", function()
    local pipe = io.popen("luajit spec/bench/run.lua --where --json file 2>&1; echo $?")
    local said = pipe:read("*a")
    pipe:close()
    assert.matches("%-%-where prints a page.*\n2\n$", said)
  end)
end)
