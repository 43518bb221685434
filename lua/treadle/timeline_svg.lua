--- A recording as a picture: SVG, for pages that do not move.
-- @module treadle.timeline_svg
local timeline = require "treadle.timeline"

local M = {}

local WIDTH, NAMES, RIGHT = 1100, 96, 14
local LANE, WAIT, GAP, AXIS, QUEUE = 22, 12, 12, 34, 46

--- Arrows are drawn only while they do not hide what they connect.
local MOST_ARROWS = 120

--- Of letters, on average: text that does not fit is left out.
local LETTER = 6.6

local HUES = { 212, 28, 148, 268, 348, 184, 84, 312, 48, 240 }

local STYLE = [[
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1d2129; }
.soft { fill: #667080; } .small { font-size: 10px; } .name { font-weight: 600; }
.back { fill: #ffffff; } .grid { stroke: #eceef1; } .line { stroke: #d9dce1; }
.queue { fill: #6d83a8; fill-opacity: .3; stroke: #6d83a8; }
.arrow { fill: none; stroke: #667080; stroke-opacity: .45; }
.head { fill: #667080; fill-opacity: .7; }
.mark { fill: #2563c9; } .bad { fill: #d33c3c; } .load { fill: #b9bec7; }
]]

local DARK = [[
text { fill: #e5e8ee; } .soft { fill: #98a2b3; } .back { fill: #14171c; }
.grid { stroke: #232831; } .line { stroke: #353b46; }
.arrow { stroke: #98a2b3; } .head { fill: #98a2b3; }
.mark { fill: #7aa7f5; } .load { fill: #565d69; }
]]

local function escape(text)
  return (text:gsub("[&<>\"]", function(c) return ("&#%d;"):format(c:byte()) end)
    :gsub("[%z\1-\8\11\12\14-\31]", "\239\191\189"))
end

local function letters(text)
  return #text:gsub("[\128-\191]", "")
end

--- As much of a text as fits, or nil.
local function fitted(text, width)
  local room = math.floor((width - 8) / LETTER)
  if letters(text) <= room then
    return text
  elseif room < 4 then
    return nil
  end
  local out, n = {}, 0
  for c in text:gmatch "[%z\1-\127\194-\244][\128-\191]*" do
    n = n + 1
    if n >= room then
      break
    end
    out[n] = c
  end
  return table.concat(out) .. "…"
end

--- A round step of which `count` or fewer make `length`.
local function step_of(length, count)
  local power = 10 ^ math.floor(math.log10(length / count))
  for _, n in ipairs { 1, 2, 5, 10 } do
    if n * power * count >= length then
      return n * power
    end
  end
end

local function task_of(item)
  if item.cat == "call" or item.cat == "result" then
    return item.name:gsub("^%S+ ", "")
  end
  return (item.name:gsub(" waits$", ""):gsub(" in the host$", ""))
end

--- A picture of a model (treadle.timeline).
function M.draw(model)
  local out, classes, colours = {}, {}, 0
  local stop = math.max(model.stop, 1e-3)
  local function add(format, ...)
    out[#out + 1] = format:format(...)
  end
  local function x(ts)
    return NAMES + ts / stop * (WIDTH - NAMES - RIGHT)
  end

  local styles, dark = {}, {}
  local function class_of(item)
    if item.cat == "worker" then
      return "load"
    end
    local task = task_of(item)
    if not classes[task] then
      local hue = HUES[colours % #HUES + 1]
      classes[task] = "t" .. colours
      styles[#styles + 1] = (".t%d { fill: hsl(%d, 62%%, 70%%); }"):format(colours, hue)
      dark[#dark + 1] = (".t%d { fill: hsl(%d, 48%%, 42%%); }"):format(colours, hue)
      colours = colours + 1
    end
    return classes[task]
  end
  for _, track in ipairs(model.tracks) do -- tasks first, in the order in which they run
    for _, slice in ipairs(track.slices) do
      if slice.cat == "run" then
        class_of(slice)
      end
    end
  end

  -- where everything lies
  local y, places = AXIS, {}
  if #model.samples > 0 then
    y = y + QUEUE + GAP
  end
  for _, track in ipairs(model.tracks) do
    places[track.tid] = y
    y = y + track.lanes * LANE + track.wait_lanes * WAIT + GAP
  end
  local height = y

  local unit = stop < 1e3 and { 1, "µs" } or stop < 1e6 and { 1e3, "ms" } or { 1e6, "s" }
  local step = step_of(stop, 8)
  local digits = math.max(0, math.ceil(-math.log10(step / unit[1]) - 1e-9)) + 0 -- no -0
  for n = 0, math.floor(stop / step + 1e-9) do
    local at = x(n * step)
    add('<path class="grid" d="M%.1f %d V%d"/>', at, AXIS - 8, height)
    add('<text class="soft small" x="%.1f" y="%d" text-anchor="%s">%s %s</text>', at, AXIS - 14,
      at > WIDTH - 60 and "end" or "middle", ("%." .. digits .. "f"):format(n * step / unit[1]),
      unit[2])
  end

  if #model.samples > 0 then
    local most = 1
    for _, sample in ipairs(model.samples) do
      most = math.max(most, sample.calls)
    end
    local base = AXIS + QUEUE
    local parts, last, drawn = { ("M%.1f %d"):format(x(0), base) }, 0, -1
    for _, sample in ipairs(model.samples) do
      local at = x(sample.ts)
      if at - drawn > 0.3 or sample.calls == most then
        parts[#parts + 1] = ("L%.1f %.1f L%.1f %.1f"):format(at, base - last / most * QUEUE, at,
          base - sample.calls / most * QUEUE)
        drawn = at
        last = sample.calls
      end
    end
    parts[#parts + 1] = ("L%.1f %.1f L%.1f %d Z"):format(x(stop), base
      - model.samples[#model.samples].calls / most * QUEUE, x(stop), base)
    add('<path class="queue" d="%s"/>', table.concat(parts, " "))
    add('<text class="name" x="10" y="%d">queued</text>', AXIS + 14)
    add('<text class="soft small" x="10" y="%d">at most %d</text>', AXIS + 30, most)
  end

  -- each rectangle at least as wide as can be seen; what is hidden behind another is left out
  local function rectangle(item, top, tall, class)
    local left, right = x(item.ts), x(item.ts + item.dur)
    add('<rect class="%s" x="%.2f" y="%.1f" width="%.2f" height="%d"%s>'
      .. "<title>%s, %s</title></rect>", class, left, top, math.max(right - left, 0.8), tall,
      item.cat == "wait" and ' fill-opacity=".35"' or "", escape(item.name),
      timeline.duration(item.dur))
    local text = fitted(item.name, right - left)
    if text then
      add('<text class="%s" x="%.1f" y="%.1f">%s</text>', item.cat == "wait" and "soft small" or "",
        left + 4, top + tall / 2 + (item.cat == "wait" and 3.5 or 4.5), escape(text))
    end
    if item.outcome and item.outcome ~= "done" then
      add('<rect class="bad" x="%.2f" y="%.1f" width="2.5" height="%d"/>',
        math.max(right - 2.5, left), top, tall)
    end
  end
  for _, track in ipairs(model.tracks) do
    local top = places[track.tid]
    add('<path class="line" d="M0 %.1f H%d"/>', top - GAP / 2, WIDTH)
    add('<text class="name" x="10" y="%d">%s</text>', top + 15, escape(track.name))
    local filled = {}
    for _, slice in ipairs(track.slices) do
      local right = math.max(x(slice.ts + slice.dur), x(slice.ts) + 0.8)
      if right - (filled[slice.depth] or -1) > 0.3 then
        filled[slice.depth] = right
        rectangle(slice, top + slice.depth * LANE, LANE - 4, class_of(slice))
      end
    end
    filled = {}
    for _, span in ipairs(track.waits) do
      local right = x(span.ts + span.dur)
      if right - (filled[span.lane] or -1) > 0.5 then
        filled[span.lane] = right
        rectangle(span, top + track.lanes * LANE + span.lane * WAIT, WAIT - 2, class_of(span))
      end
    end
  end

  -- arrows, from a call to its pieces, and to its result
  local ids = {}
  for id, c in pairs(model.calls) do
    if c.made then
      ids[#ids + 1] = id
    end
  end
  table.sort(ids)
  local function middle(slice)
    return places[slice.tid] + slice.depth * LANE + (LANE - 4) / 2
  end
  for _, id in ipairs(#ids <= MOST_ARROWS and ids or {}) do
    local c = model.calls[id]
    local points = { c.made, unpack(c.runs) }
    points[#points + 1] = c.home
    for i = 2, #points do
      local a, b = points[i - 1], points[i]
      local x1, y1 = x(a.cat == "run" and a.ts + a.dur or a.ts), middle(a)
      local x2, y2 = x(b.ts), middle(b)
      if y1 ~= y2 then
        local bend = math.max(6, math.min(50, math.abs(x2 - x1) / 2))
        add('<path class="arrow" d="M%.1f %.1f C%.1f %.1f %.1f %.1f %.1f %.1f"/>', x1, y1,
          x1 + bend, y1, x2 - bend, y2, x2, y2)
        add('<path class="head" d="M%.1f %.1f l-5 -2.5 v5 z"/>', x2, y2)
      end
    end
  end

  for _, track in ipairs(model.tracks) do
    local last = -9
    for _, mark in ipairs(track.marks) do
      local at = x(mark.ts)
      if at - last > 1 then
        last = at
        add('<path class="%s" d="M%.1f %.1f l-4 -7 h8 z"><title>%s</title></path>',
          mark.id and "bad" or "mark", at, places[track.tid] + 2, escape(mark.name))
      end
    end
  end

  return table.concat({
    ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">'):format(
      WIDTH, height, WIDTH, height),
    ("<title>%s: %s</title>"):format(escape(model.title), timeline.duration(model.stop)),
    "<style>", STYLE, table.concat(styles, "\n"), "@media (prefers-color-scheme: dark) {", DARK,
    table.concat(dark, "\n"), "}</style>",
    ('<rect class="back" width="%d" height="%d"/>'):format(WIDTH, height),
    table.concat(out, "\n"),
    "</svg>\n",
  }, "\n")
end

return M
