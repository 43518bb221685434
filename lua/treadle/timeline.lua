--- A recording of a pool (docs/trace.md), read again: what ran where, when, and why.
-- @module treadle.timeline
local json = require "treadle.json"

local M = {}

-- --- reading -----------------------------------------------------------------------------------

--- What a process that died has written lacks its end: up to the last whole line it is there.
-- @return the text with an end, and its value; or nil
local function mended(text)
  for _, pattern in ipairs { "^(%s*%[.*})%s*$", "^(%s*%[.*}),%s*\n[^\n]*$" } do
    local whole = text:match(pattern)
    local value = whole and json.decode(whole .. "\n]")
    if value then
      return whole .. "\n]", value
    end
  end
end

--- Read a file.
-- @return its text, as JSON without an end that is missing, and the list of events; or nil and what
-- is wrong
function M.read(path)
  local file, problem = io.open(path, "rb")
  if not file then
    return nil, problem
  end
  local text = file:read "*a"
  file:close()
  if not text then
    return nil, path .. ": it cannot be read"
  end
  local value, why = json.decode(text)
  if value == nil then
    text, value = mended(text)
  end
  if value == nil then
    return nil, ("%s is no JSON: %s"):format(path, why)
  end
  local events = type(value) == "table" and (value.traceEvents or value)
  if type(events) ~= "table" or type(events[1]) ~= "table" or not events[1].ph then
    return nil, path .. " is no recording: a list of trace events expected"
  end
  return text, events
end

-- --- the model ---------------------------------------------------------------------------------

local function by_time(a, b)
  if a.ts ~= b.ts then
    return a.ts < b.ts
  end
  return a.dur > b.dur
end

--- Give each of the slices of a track the depth that it has in others.
local function set_depths(slices)
  table.sort(slices, by_time)
  local open, deepest = {}, 0
  for _, slice in ipairs(slices) do
    while open[1] and open[#open].ts + open[#open].dur <= slice.ts + 0.0005 do
      open[#open] = nil
    end
    slice.depth = #open
    deepest = math.max(deepest, #open)
    open[#open + 1] = slice
  end
  return deepest + 1
end

--- Give each span of a track the first lane that is free then, of at most `limit`.
local function set_lanes(spans, limit)
  table.sort(spans, by_time)
  local free = {}
  for _, span in ipairs(spans) do
    local lane = 1
    while lane < limit and free[lane] and free[lane] > span.ts do
      lane = lane + 1
    end
    free[lane] = math.max(free[lane] or 0, span.ts + span.dur)
    span.lane = lane - 1
  end
  return #free
end

--- What the events say.
-- @return a table: `title`, `stop` (us), `events`, `lost`, `samples` (`ts`, `calls`), `calls` (by
-- number: `made`, `runs`, `home`), `tracks` (sorted: `tid`, `name`, `slices` with a `depth`,
-- `lanes`, `waits` with a `lane`, `wait_lanes`, `marks`)
function M.model(events)
  local model = { title = "trace", stop = 0, events = 0, lost = 0, tracks = {}, samples = {},
    calls = {} }
  local tracks, waits = {}, {}
  local function track(tid)
    if not tracks[tid] then
      tracks[tid] = { tid = tid, name = tid == 0 and "host" or "worker " .. tid, slices = {},
        waits = {}, marks = {} }
      table.insert(model.tracks, tracks[tid])
    end
    return tracks[tid]
  end
  local function call(id)
    model.calls[id] = model.calls[id] or { runs = {} }
    return model.calls[id]
  end
  for _, e in ipairs(events) do
    local args = e.args or {}
    if e.ph ~= "M" then
      model.events = model.events + 1
      model.stop = math.max(model.stop, (e.ts or 0) + (e.dur or 0))
    end
    if e.ph == "X" then
      local slice = { ts = e.ts, dur = e.dur, name = e.name, cat = e.cat, tid = e.tid,
        id = args.call, outcome = args.outcome }
      table.insert(track(e.tid).slices, slice)
      if slice.id and e.cat == "call" then
        call(slice.id).made = slice
      elseif slice.id and e.cat == "result" then
        call(slice.id).home = slice
      elseif slice.id then
        table.insert(call(slice.id).runs, slice)
      end
    elseif e.ph == "b" then
      waits[e.cat .. e.id] = { ts = e.ts, name = e.name, cat = e.cat, tid = e.tid,
        id = tonumber(e.id) }
    elseif e.ph == "e" and waits[e.cat .. e.id] then
      local span = waits[e.cat .. e.id]
      waits[e.cat .. e.id] = nil
      span.dur = e.ts - span.ts
      table.insert(track(span.tid).waits, span)
    elseif e.ph == "i" then
      table.insert(track(e.tid).marks, { ts = e.ts, name = e.name, id = args.call })
    elseif e.ph == "C" then
      table.insert(model.samples, { ts = e.ts, calls = args.calls })
    elseif e.ph == "M" and e.name == "process_name" then
      model.title = args.name
    elseif e.ph == "M" and e.name == "thread_name" then
      track(e.tid).name = args.name
    elseif e.ph == "M" and e.name == "process_labels" then
      model.lost = args.lost or 0
    end
  end
  for _, span in pairs(waits) do -- without an end
    span.dur = model.stop - span.ts
    table.insert(track(span.tid).waits, span)
  end
  table.sort(model.tracks, function(a, b) return a.tid < b.tid end)
  table.sort(model.samples, function(a, b) return a.ts < b.ts end)
  for _, t in ipairs(model.tracks) do
    t.lanes = set_depths(t.slices)
    t.wait_lanes = set_lanes(t.waits, 4)
  end
  for _, c in pairs(model.calls) do
    table.sort(c.runs, by_time)
  end
  return model
end

-- --- the summary -------------------------------------------------------------------------------

--- Microseconds as a person reads them.
function M.duration(us)
  local value, unit = us, "µs"
  if us < 1 then
    value, unit = us * 1e3, "ns"
  elseif us >= 1e6 then
    value, unit = us / 1e6, "s"
  elseif us >= 1e3 then
    value, unit = us / 1e3, "ms"
  end
  local text = value >= 100 and ("%.0f"):format(value) or value >= 10 and ("%.1f"):format(value)
    or ("%.2f"):format(value)
  return text .. " " .. unit
end

local function percentile(sorted, share)
  return #sorted > 0 and sorted[math.max(1, math.ceil(share * #sorted))] or 0
end

--- Lines of columns; the first is a name, the others are numbers.
local function columns(rows)
  local widths = {}
  local function length(text)
    return #text:gsub("[\128-\191]", "")
  end
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      widths[i] = math.max(widths[i] or 0, length(cell))
    end
  end
  local lines = {}
  for n, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      local pad = (" "):rep(widths[i] - length(cell))
      cells[i] = i == 1 and cell .. pad or pad .. cell
    end
    lines[n] = table.concat(cells, "  "):gsub("%s+$", "")
  end
  return table.concat(lines, "\n")
end

--- Times of each task: of its runs, from the first piece on, and in the queue.
local function times_of(model)
  local tasks, names = {}, {}
  for _, c in pairs(model.calls) do
    local first, last = c.runs[1], c.runs[#c.runs]
    if first then
      local task = tasks[first.name]
      if not task then
        task = { runs = {}, queued = {}, ended = 0, failed = 0 }
        tasks[first.name] = task
        names[#names + 1] = first.name
      end
      if last.outcome then
        task.ended = task.ended + 1
        task.failed = task.failed + (last.outcome == "done" and 0 or 1)
        table.insert(task.runs, last.ts + last.dur - first.ts)
      end
      if c.made then
        table.insert(task.queued, first.ts - c.made.ts)
      end
    end
  end
  table.sort(names)
  for _, task in pairs(tasks) do
    table.sort(task.runs)
    table.sort(task.queued)
  end
  return tasks, names
end

--- The summary of a model, for a terminal.
function M.summary(model)
  local made, home, highest = 0, 0, 0
  for _, c in pairs(model.calls) do
    made = made + (c.made and 1 or 0)
    home = home + (c.made and c.home and 1 or 0)
  end
  for _, sample in ipairs(model.samples) do
    highest = math.max(highest, sample.calls)
  end
  local head = ("%s: %d events in %s, %d calls, %d of them home, at most %d queued"):format(
    model.title, model.events, M.duration(model.stop), made, home, highest)
  if model.lost > 0 then
    head = head .. (", %d events lost"):format(model.lost)
  end
  local workers = { { "worker", "pieces", "busy", "utilisation" } }
  for _, t in ipairs(model.tracks) do
    if t.tid ~= 0 then
      local busy, pieces = 0, 0
      for _, slice in ipairs(t.slices) do
        if slice.cat == "run" and slice.depth == 0 then
          busy, pieces = busy + slice.dur, pieces + 1
        end
      end
      table.insert(workers, { t.name, tostring(pieces), M.duration(busy),
        ("%.0f %%"):format(busy / math.max(model.stop, 1e-3) * 100) })
    end
  end
  local tasks, names = times_of(model)
  local rows = { { "task", "ended", "failed", "in progress: p50", "p90", "p99", "max",
    "queued: p50", "p90", "p99", "max" } }
  for _, name in ipairs(names) do
    local task = tasks[name]
    local row = { name, tostring(task.ended), tostring(task.failed) }
    for _, list in ipairs { task.runs, task.queued } do
      for _, share in ipairs { 0.5, 0.9, 0.99, 1 } do
        row[#row + 1] = M.duration(percentile(list, share))
      end
    end
    rows[#rows + 1] = row
  end
  return head .. "\n\n" .. columns(workers) .. "\n\n" .. columns(rows) .. "\n"
end

-- --- the page ----------------------------------------------------------------------------------

--- A page for a browser, with the recording in it.
function M.page(text)
  local page = require "treadle.trace_page"
  local data = text:gsub("<", "\\u003c")
  local first, last = page:find('<script type="application/json" id="trace">[]', 1, true)
  assert(first, "the page has no place for its data")
  return page:sub(1, last - 2) .. data .. page:sub(last + 1)
end

return M
