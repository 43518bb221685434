--- The bench's second page: where the time of one call goes. A build with stamps (src/base/stamp.h)
-- leaves a trace per thread; here the traces become calls, calls become stages, and these columns.
-- @module where
local text = require "text"

local where = {}

--- The keys of the payloads that the page shows.
where.PAYLOADS = { "number", "string100", "record", "nested" }

-- Of limits and clocks the best sample counts. A round's stages leave out the calls that something
-- else came between; a clock, or a limit that needs both cores, cannot.
local BEST = { line = true, stamp = true, encode = true, decode = true, plain = true,
  stamped = true }

--- What the samples of a key come to.
function where.figure(key, samples)
  local q = text.quantiles(samples)
  return BEST[key:match("^%l+")] and q.min or q.median
end

--- How many calls are under way at once.
where.WAYS = { "one", "flight" }

local HEADS = { one = "one call at a time", flight = "1,000 calls in flight" }

local TITLES = {
  number = "number", string100 = "100-byte string", record = "table of 10 keys",
  nested = "nested table",
}

-- A point that may lie off the way of the call (who was handed the job goes on at once) counts as
-- passed when the job was.
local function pushed(c) return math.min(c.pushed, c.taken) end
local function sent(c) return math.min(c.sent, c.received) end

-- One call at a time: each stage begins where the one before it ends, and the last one ends with
-- the next call's begin. `best` is a key of the limits; the payload's is appended to a dot.
local ONE = {
  { who = "host", key = "encode", text = "encode", best = "encode.",
    fn = function(c) return c.encoded - c.begun end },
  { who = "host", key = "make", text = "make the future",
    fn = function(c) return c.made - c.encoded end },
  { who = "host", key = "push", text = "push",
    fn = function(c) return pushed(c) - c.made end },
  { who = "way", key = "over", text = "hand over", best = "line",
    fn = function(c) return c.taken - pushed(c) end },
  { who = "worker", key = "start", text = "take the job", best = "line",
    fn = function(c) return c.started - c.taken end },
  { who = "worker", key = "decode", text = "decode", best = "decode.",
    fn = function(c) return c.decoded - c.started end },
  { who = "worker", key = "run", text = "run",
    fn = function(c) return c.ran - c.decoded end },
  { who = "worker", key = "answer", text = "encode", best = "encode.",
    fn = function(c) return c.answered - c.ran end },
  { who = "worker", key = "send", text = "push",
    fn = function(c) return sent(c) - c.answered end },
  { who = "way", key = "back", text = "hand back", best = "line",
    fn = function(c) return c.received - sent(c) end },
  { who = "host", key = "open", text = "take the job", best = "line",
    fn = function(c) return c.opened - c.received end },
  { who = "host", key = "report", text = "decode, settle", best = "decode.",
    fn = function(c) return c.reported - c.opened end },
  { who = "host", key = "resume", text = "resume, caller's loop",
    fn = function(c, next_call) return next_call.begun - c.reported end },
}

-- Many calls in flight: what each side does for one call. The first stage begins where the thread's
-- last call was left, if it did nothing else in between.
local FLIGHT = {
  { who = "host", key = "loop", text = "caller's loop",
    fn = function(c) return c.begun_after end },
  { who = "host", key = "encode", text = "encode", best = "encode.",
    fn = function(c) return c.encoded - c.begun end },
  { who = "host", key = "make", text = "make the future",
    fn = function(c) return c.made - c.encoded end },
  { who = "host", key = "push", text = "push",
    fn = function(c) return c.pushed - c.made end },
  { who = "host", key = "receive", text = "pop",
    fn = function(c) return c.received_after end },
  { who = "host", key = "open", text = "take the job",
    fn = function(c) return c.opened - c.received end },
  { who = "host", key = "report", text = "decode, settle", best = "decode.",
    fn = function(c) return c.reported - c.opened end },
  { who = "host", key = "rest", text = "waits, and the rest" },
  { who = "worker", key = "take", text = "pop",
    fn = function(c) return c.taken_after end },
  { who = "worker", key = "start", text = "take the job",
    fn = function(c) return c.started - c.taken end },
  { who = "worker", key = "decode", text = "decode", best = "decode.",
    fn = function(c) return c.decoded - c.started end },
  { who = "worker", key = "run", text = "run",
    fn = function(c) return c.ran - c.decoded end },
  { who = "worker", key = "answer", text = "encode", best = "encode.",
    fn = function(c) return c.answered - c.ran end },
  { who = "worker", key = "send", text = "push",
    fn = function(c) return c.sent - c.answered end },
  { who = "worker", key = "idle", text = "waits, and the rest" },
}

where.STAGES = { one = ONE, flight = FLIGHT }

-- From traces to calls ----------------------------------------------------------------------------

-- What precedes these points if the thread did nothing else in between.
local AFTER = { begun = "pushed", taken = "sent", received = "reported" }

-- The points that the caller's thread passes; a worker passes the others.
local CALLER = {
  begun = true, encoded = true, made = true, pushed = true, received = true, opened = true,
  reported = true,
}

--- One thread's stamps as halves of calls, appended to lists by job.
local function read_trace(trace, points, callers, workers)
  local caller, worker = {}, {} -- job -> its present use's half
  local begun, begun_after -- of a job that is not known yet
  local last_name, last_ticks
  for i = 1, #trace, 3 do
    local ticks, job, name = trace[i], trace[i + 1], points[trace[i + 2]]
    local after = AFTER[name] and last_name == AFTER[name] and ticks - last_ticks or nil
    local halves, lists, half = worker, workers, nil
    if CALLER[name] then halves, lists = caller, callers end
    if name == "begun" then
      if not begun then begun, begun_after = ticks, after end
    elseif begun and halves == caller then
      half = { begun = begun, begun_after = begun_after }
      begun = nil
    elseif name == "taken" then
      half = { taken_after = after }
    end
    if half then
      halves[job] = half
      lists[job] = lists[job] or {}
      table.insert(lists[job], half)
    end
    half = halves[job]
    if half and not half[name] and name ~= "begun" then -- the first time counts
      half[name] = ticks
      if name == "received" then half.received_after = after end
    end
    last_name, last_ticks = name, ticks
  end
end

local function is_whole(call, points)
  for _, name in ipairs(points) do
    if not call[name] then return false end
  end
  return true
end

--- The calls that the traces tell of from begin to end, in the order of their begins. The uses of a
-- job by its caller and by workers are the same ones; the last are the last if none is under way.
-- @param stamps what `core.stamps` returns
-- @param since ticks: calls that began before are left out
function where.calls(stamps, since)
  local callers, workers, calls = {}, {}, {}
  for _, trace in ipairs(stamps) do read_trace(trace, stamps.points, callers, workers) end
  for job, uses in pairs(callers) do
    local others = workers[job] or {}
    for back = 0, math.min(#uses, #others) - 1 do
      local call = uses[#uses - back]
      for name, ticks in pairs(others[#others - back]) do call[name] = ticks end
      if call.begun >= since and is_whole(call, stamps.points) then calls[#calls + 1] = call end
    end
  end
  table.sort(calls, function(x, y) return x.begun < y.begun end)
  return calls
end

--- The stages that stand beside each other in one sum: all of a call's, or those of one side.
local function groups_of(way)
  local groups, by_who = {}, {}
  for _, stage in ipairs(where.STAGES[way]) do
    local who = way == "one" and "all" or stage.who
    if not by_who[who] then
      by_who[who] = {}
      groups[#groups + 1] = by_who[who]
    end
    if stage.fn then table.insert(by_who[who], stage) end
  end
  return groups
end

--- What each stage takes: the mean over the middle half of the calls, by their sum. Not each
-- stage's median, since some processors' counter moves in steps as long as a stage: a mean over
-- many calls does not care, and means add up.
-- @return stage key -> ticks, how many calls arrived before they were sent
function where.stages(way, calls)
  local means, backwards = {}, 0
  for _, group in ipairs(groups_of(way)) do
    local rows = {}
    for i = 1, #calls - 1 do
      local row, sum = {}, 0
      for k, stage in ipairs(group) do
        local ticks = row and stage.fn(calls[i], calls[i + 1])
        if ticks then
          row[k], sum = ticks, sum + ticks
        else
          row = nil
        end
      end
      if row then
        row.sum = sum
        rows[#rows + 1] = row
      end
    end
    table.sort(rows, function(x, y) return x.sum < y.sum end)
    local first, last = math.floor(#rows / 4) + 1, math.ceil(#rows * 3 / 4)
    for k, stage in ipairs(group) do
      local sum = 0
      for i = first, last do sum = sum + rows[i][k] end
      means[stage.key] = #rows > 0 and sum / (last - first + 1) or nil
    end
  end
  for _, c in ipairs(calls) do -- a push comes before what it hands over is taken
    if c.taken < c.made or c.received < c.answered then backwards = backwards + 1 end
  end
  return means, backwards
end

-- The page ----------------------------------------------------------------------------------------

--- A way's stages of one payload, in seconds, and what is left of the whole. A stage's own stamp is
-- taken off; not from a hand-over, which began while the other side stamped that it had pushed.
-- @param m figures by key
-- @return stage key -> seconds, the whole
local function complete(way, payload, m)
  local got, whole = {}, m[("plain.%s.%s"):format(way, payload)]
  local sums = { host = 0, worker = 0, way = 0 }
  for _, stage in ipairs(where.STAGES[way]) do
    if stage.fn then
      local seconds = m[("%s.%s.%s"):format(way, payload, stage.key)]
      if not seconds then return nil end
      if stage.who ~= "way" then seconds = math.max(0, seconds - (m.stamp or 0)) end
      got[stage.key] = seconds
      sums[stage.who] = sums[stage.who] + seconds
    end
  end
  if way == "one" then return got, sums.host + sums.worker + sums.way end
  if not whole then return nil end
  got.rest, got.idle = whole - sums.host, whole - sums.worker
  return got, whole
end

local function nanoseconds(seconds)
  if not seconds then return "-" end
  local ns = seconds * 1e9
  if math.abs(ns) >= 99999.5 then return ("%.0fµ"):format(ns / 1000) end
  return (math.abs(ns) < 99.95 and "%.1f" or "%.0f"):format(ns)
end

--- The lines of the page.
-- @param m figures by key, in seconds
function where.lines(m)
  local lines = {}
  local function line(who, what, cells)
    local all = text.left(who, 7) .. text.left(what, 22) .. table.concat(cells)
    lines[#lines + 1] = (all:gsub("%s+$", ""))
  end
  local function each(fn)
    local cells = {}
    for i, payload in ipairs(where.PAYLOADS) do cells[i] = fn(payload) end
    return cells
  end
  local function cell(a, b, c)
    return text.right(a, 6) .. text.right(b or "", 6) .. text.right(c or "", 6)
  end
  for _, way in ipairs(where.WAYS) do
    local got, whole = {}, {}
    for _, payload in ipairs(where.PAYLOADS) do
      got[payload], whole[payload] = complete(way, payload, m)
    end
    if #lines > 0 then lines[#lines + 1] = "" end
    line("", "", each(function(payload) return text.right(TITLES[payload], 18) end))
    lines[#lines + 1] = text.left(HEADS[way], 29) .. cell("ns", "%", "best"):rep(#where.PAYLOADS)
    lines[#lines + 1] = ("-"):rep(29 + 18 * #where.PAYLOADS)
    for _, stage in ipairs(where.STAGES[way]) do
      line(stage.who, stage.text, each(function(payload)
        local best = stage.best
        if best and best:match("%.$") then best = best .. payload end
        local seconds = got[payload] and got[payload][stage.key]
        return cell(nanoseconds(seconds),
          seconds and ("%.1f"):format(100 * seconds / whole[payload]) or "-",
          nanoseconds(best and m[best]))
      end))
    end
    local function clock(kind, payload) return m[("%s.%s.%s"):format(kind, way, payload)] end
    lines[#lines + 1] = ("-"):rep(29 + 18 * #where.PAYLOADS)
    if way == "one" then
      line("", "sum of the stages", each(function(payload)
        return cell(nanoseconds(whole[payload]))
      end))
    end
    line("", "by the clock", each(function(payload)
      return cell(nanoseconds(clock("plain", payload)))
    end))
    line("", "with stamps", each(function(payload)
      return cell(nanoseconds(clock("stamped", payload)))
    end))
    line("", "the stamps cost", each(function(payload)
      local with, without = clock("stamped", payload), clock("plain", payload)
      return cell(nanoseconds(with and without and with - without))
    end))
  end
  return lines
end

--- What speaks against comparing one core's counter with another's; nil if nothing does.
-- @param flags the flags of the processor, "" if they do not matter
-- @param backwards the share of calls that arrived before they were sent
function where.doubt(flags, backwards)
  if flags ~= "" then
    for _, flag in ipairs { "constant_tsc", "nonstop_tsc" } do
      if not flags:find("%f[%w_]" .. flag .. "%f[^%w_]") then
        return ("the processor does not say that its counter is invariant (%s)"):format(flag)
      end
    end
  end
  if backwards > 0.001 then
    return ("%.1f %% of the calls arrived before they were sent, so the cores' counters differ")
      :format(100 * backwards)
  end
end

return where
