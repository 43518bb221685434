--- What the Trace Event Format demands of a file, and what a recording of treadle's promises more.
-- https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
-- @module trace_format
local json = require "treadle.json"

local M = {}

--- The fields that every event of a phase has, and their types.
local COMMON = { name = "string", ph = "string", pid = "number", tid = "number" }
local PHASES = {
  X = { ts = "number", dur = "number", cat = "string" },
  i = { ts = "number", s = "string", cat = "string" },
  C = { ts = "number", args = "table" },
  M = { args = "table" },
  b = { ts = "number", cat = "string", id = "string" },
  e = { ts = "number", cat = "string", id = "string" },
  s = { ts = "number", cat = "string", id = "string" },
  t = { ts = "number", cat = "string", id = "string" },
  f = { ts = "number", cat = "string", id = "string", bp = "string" },
}

local function check_fields(event, fields)
  for name, kind in pairs(fields) do
    if type(event[name]) ~= kind then
      error(("a '%s' event whose %s is a %s, not a %s"):format(event.ph, name, type(event[name]),
        kind), 0)
    end
  end
end

local function by_time(a, b)
  if a.ts ~= b.ts then
    return a.ts < b.ts
  end
  return (a.dur or 0) > (b.dur or 0)
end

--- Times are nanoseconds written as microseconds: what lies below is the reader's rounding.
local LEAST = 0.0005

--- Slices of one track are side by side, or one in another.
local function check_nesting(slices)
  table.sort(slices, by_time)
  local open = {}
  for _, slice in ipairs(slices) do
    while open[1] and open[#open].ts + open[#open].dur <= slice.ts + LEAST do
      open[#open] = nil
    end
    local outer = open[#open]
    if outer and slice.ts + slice.dur > outer.ts + outer.dur + LEAST then
      error(("'%s' at %.3f begins in '%s' at %.3f of track %d and ends behind it"):format(
        slice.name, slice.ts, outer.name, outer.ts, slice.tid), 0)
    end
    open[#open + 1] = slice
  end
end

--- For each track, the times at which slices begin: a set.
local function beginnings(tracks)
  local sets = {}
  for tid, slices in pairs(tracks) do
    sets[tid] = {}
    for _, slice in ipairs(slices) do
      sets[tid][slice.ts] = true
    end
  end
  return sets
end

--- An arrow begins before it ends, once each, and each point of it is where a slice begins.
local function check_flows(flows, tracks)
  local counts, begin = { begun = 0, ended = 0 }, beginnings(tracks)
  for id, list in pairs(flows) do
    table.sort(list, function(a, b) return a.ts < b.ts end)
    for i, event in ipairs(list) do
      if (event.ph == "s") ~= (i == 1) then
        error(("arrow %s: '%s' is its point %d"):format(id, event.ph, i), 0)
      elseif event.ph == "f" and i ~= #list then
        error(("arrow %s goes on behind its end"):format(id), 0)
      elseif not (begin[event.tid] and begin[event.tid][event.ts]) then
        error(("arrow %s: its '%s' lies in no slice"):format(id, event.ph), 0)
      end
    end
    counts.begun = counts.begun + 1
    counts.ended = counts.ended + (list[#list].ph == "f" and 1 or 0)
  end
  return counts
end

local function check_spans(spans)
  for id, list in pairs(spans) do
    table.sort(list, by_time)
    for i, event in ipairs(list) do
      if event.ph ~= (i % 2 == 1 and "b" or "e") then
        error(("span %s: its point %d is '%s'"):format(id, i, event.ph), 0)
      end
    end
  end
end

--- Every sample differs from the one before by one call.
local function check_counter(samples)
  table.sort(samples, function(a, b) return a.ts < b.ts end)
  local depth, rises = 0, 0
  for i, sample in ipairs(samples) do
    local calls = sample.args.calls
    if math.abs(calls - depth) ~= 1 or i > 1 and sample.ts <= samples[i - 1].ts then
      error(("sample %d: the queue goes from %d to %d"):format(i, depth, calls), 0)
    end
    rises = rises + (calls > depth and 1 or 0)
    depth = calls
  end
  return rises, depth
end

local function add(lists, key, value)
  lists[key] = lists[key] or {}
  table.insert(lists[key], value)
end

--- Check the text of a recording.
-- @return a table: `events` (all but metadata), `slices`, `marks` (names, by track), `arrows`
-- (`begun`, `ended`), `calls` (how often the queue grew), `depth` (at the end), `spans`, `names`
-- (of tracks), `metadata` (by name)
-- @raise what is wrong
function M.check(text)
  local list, problem = json.decode(text)
  if not list then
    error("no JSON: " .. problem, 0)
  end
  local found = { events = 0, slices = {}, marks = {}, names = {}, metadata = {}, spans = {} }
  local tracks, flows, samples = {}, {}, {}
  for _, event in ipairs(list) do
    check_fields(event, COMMON)
    check_fields(event, PHASES[event.ph] or error(("an unknown phase, '%s'"):format(event.ph), 0))
    found.events = found.events + (event.ph == "M" and 0 or 1)
    if event.ph == "X" then
      if event.dur < 0 or event.ts < 0 then
        error(("'%s' at %g lasts %g"):format(event.name, event.ts, event.dur), 0)
      end
      add(tracks, event.tid, event)
      found.slices[#found.slices + 1] = event
    elseif event.ph == "i" then
      add(found.marks, event.tid, event.name)
    elseif event.ph == "C" then
      samples[#samples + 1] = event
    elseif event.ph == "b" or event.ph == "e" then
      add(found.spans, event.cat .. " " .. event.id, event)
    elseif event.ph == "M" then
      found.metadata[event.name] = event
      if event.name == "thread_name" then
        found.names[event.tid] = event.args.name
      end
    else
      add(flows, event.id, event)
    end
  end
  for tid, slices in pairs(tracks) do
    check_nesting(slices)
    if not found.names[tid] then
      error(("track %d has no name"):format(tid), 0)
    end
  end
  check_spans(found.spans)
  found.arrows = check_flows(flows, tracks)
  found.calls, found.depth = check_counter(samples)
  return found
end

return M
