--- The lines of a view of a pool: a pure function of what the pool had counted before and has now.
-- A snapshot is a table `{ name =, state = "open" | "closing" | "closed", threads =, stats =,
-- running = }`: `stats` is what `pool:stats()` returns, `running` a list of
-- `{ worker =, task =, since = }`, or nil where nobody knows.
-- @module treadle.top_view
local text = require "treadle.top_text"

local M = {}

--- How many workers and tasks a pool's view names, unless it is told.
local WORKERS, TASKS = 16, 12
local BAR = 10
local GAP = 1

-- --- lines ---------------------------------------------------------------------------------------

local COLOURS = { title = "1", dim = "2", bad = "31", good = "32", warn = "33" }

--- A line of pieces `{ text, role }`, cut to the width; no spaces at its end.
local function compose(pieces, style)
  local parts, columns = {}, 0
  local last = #pieces
  while last > 0 and not pieces[last][1]:find "[^ ]" do
    last = last - 1
  end
  for i = 1, last do
    local piece, left = pieces[i], style.width - columns
    if left < 1 then
      break
    end
    local piece_text, used = text.cut(i == last and piece[1]:gsub(" +$", "") or piece[1], left,
      style.ascii)
    columns = columns + used
    local code = style.colour and COLOURS[piece[2]]
    parts[#parts + 1] = code and piece_text ~= ""
      and "\27[" .. code .. "m" .. piece_text .. "\27[0m" or piece_text
  end
  return table.concat(parts)
end

--- Put pieces one after the other, as many on a line as fit; each is a list of pieces.
local function flow(lines, items, style)
  local line, columns = {}, 0
  for _, item in ipairs(items) do
    local wide = 0
    for _, piece in ipairs(item) do
      wide = wide + text.width(piece[1])
    end
    if columns > 0 and columns + 3 + wide > style.width then
      lines[#lines + 1] = compose(line, style)
      line, columns = {}, 0
    end
    if columns > 0 then
      line[#line + 1] = { "   " }
      columns = columns + 3
    end
    for _, piece in ipairs(item) do
      line[#line + 1] = piece
    end
    columns = columns + wide
  end
  lines[#lines + 1] = compose(line, style)
end

-- --- tables --------------------------------------------------------------------------------------

local function cell_width(cell)
  local n = 0
  for _, piece in ipairs(cell) do
    n = n + text.width(piece[1])
  end
  return n
end

--- The width that each column wants.
local function measure(columns, rows)
  local widths = {}
  for i, column in ipairs(columns) do
    widths[i] = math.max(column.least or 0, text.width(column.head))
    for _, row in ipairs(rows) do
      widths[i] = math.max(widths[i], cell_width(row[i]))
    end
  end
  return widths
end

--- The least width of a column: one that may shrink needs only that of its `least`.
local function needed(column, width)
  return column.shrinks and math.min(width, math.max(column.least, text.width(column.head)))
    or width
end

--- Which columns fit, as a list of their numbers, and the width of each: the columns with the
-- greatest `drop` are left out first, and what is left belongs to the one that shrinks.
local function arrange(columns, widths, width)
  local shown = {}
  for i in ipairs(columns) do
    shown[i] = i
  end
  while true do
    local sum, worst = GAP * (#shown - 1), nil
    for at, i in ipairs(shown) do
      sum = sum + needed(columns[i], widths[i])
      if columns[i].drop and (not worst or columns[i].drop > columns[shown[worst]].drop) then
        worst = at
      end
    end
    if sum <= width or not worst then
      local spare = math.max(0, width - sum)
      for _, i in ipairs(shown) do
        local least = needed(columns[i], widths[i])
        local more = math.min(spare, widths[i] - least)
        widths[i], spare = least + more, spare - more
      end
      return shown
    end
    table.remove(shown, worst)
  end
end

--- Add a cell in its column's width. Cells of several pieces fit.
local function put(line, cell, width, column, style)
  local used, first = cell_width(cell), cell[1][1]
  if used > width and #cell == 1 then
    first, used = text.cut(first, width, style.ascii)
  end
  local fill = { (" "):rep(width - used) }
  if column.right then
    line[#line + 1] = fill
  end
  for i, piece in ipairs(cell) do
    line[#line + 1] = i == 1 and { first, piece[2] } or piece
  end
  if not column.right then
    line[#line + 1] = fill
  end
end

--- The names of groups of columns, each over its first one and underlined to its last one.
local function group_line(columns, shown, widths, style)
  local line, at, group, left = {}, 0, nil, 0
  local function close()
    if group then
      local label = " " .. group .. " "
      local rule = style.ascii and "-" or "─"
      local rest = math.max(0, at - GAP - left - #label)
      local before = math.min(2, rest)
      line[#line + 1] = { rule:rep(before) .. label .. rule:rep(rest - before), "dim" }
      line[#line + 1] = { (" "):rep(GAP) }
    end
    group = nil
  end
  for _, i in ipairs(shown) do
    local column = columns[i]
    if column.group ~= group then
      close()
      group, left = column.group, at
    end
    if not column.group then
      line[#line + 1] = { (" "):rep(widths[i] + GAP) }
    end
    at = at + widths[i] + GAP
  end
  close()
  return compose(line, style)
end

--- Add a table: columns `{ head =, right =, least =, shrinks =, drop =, group = }`, rows of cells,
-- a cell is a list of pieces.
local function add_table(lines, columns, rows, style)
  local widths = measure(columns, rows)
  local shown = arrange(columns, widths, style.width)
  local has_groups, heads = false, {}
  for at, i in ipairs(shown) do
    has_groups = has_groups or columns[i].group ~= nil
    if at > 1 then
      heads[#heads + 1] = { (" "):rep(GAP) }
    end
    put(heads, { { columns[i].head, "dim" } }, widths[i], columns[i], style)
  end
  if has_groups then
    lines[#lines + 1] = group_line(columns, shown, widths, style)
  end
  lines[#lines + 1] = compose(heads, style)
  for _, row in ipairs(rows) do
    local line = {}
    for at, i in ipairs(shown) do
      if at > 1 then
        line[#line + 1] = { (" "):rep(GAP) }
      end
      put(line, row[i], widths[i], columns[i], style)
    end
    lines[#lines + 1] = compose(line, style)
  end
end

-- --- what there is to say ------------------------------------------------------------------------

--- The snapshot to compare with: of the same pool, open, and earlier. Else the rates are those of
-- the pool's whole life.
local function comparable(before, now)
  return before and now.state ~= "closed" and now.stats.uptime > before.stats.uptime and before
    or nil
end

local function difference(before, now, ...)
  local a, b = before and before.stats, now.stats
  for _, key in ipairs { ... } do
    a, b = a and a[key], b and b[key]
  end
  return math.max(0, (b or 0) - (a or 0))
end

local function elapsed(before, now)
  return now.stats.uptime - (before and before.stats.uptime or 0)
end

local function per_second(before, now, ...)
  local seconds = elapsed(before, now)
  return seconds > 0 and difference(before, now, ...) / seconds or 0
end

--- How busy a worker was: in the time between, or always.
local function share_of(before, now, id, key)
  local seconds = elapsed(before, now)
  if not before and key == "busy" then
    return now.stats.workers[id].utilisation
  end
  return seconds > 0 and difference(before, now, "workers", id, key) / seconds or 0
end

local function plural(count, word)
  return word .. (count == 1 and "" or "s")
end

--- The number of workers that there are now, or were before the end.
local function size_of(now)
  return now.state == "closed" and #now.stats.workers
    or math.min(now.threads, #now.stats.workers)
end

--- What each worker runs: by worker, a list, what has run longest first.
local function jobs_of(now)
  local by_worker = {}
  for _, job in ipairs(now.running or {}) do
    by_worker[job.worker] = by_worker[job.worker] or {}
    table.insert(by_worker[job.worker], job)
  end
  for _, list in pairs(by_worker) do
    table.sort(list, function(a, b) return a.since > b.since end)
  end
  return by_worker
end

local STATES = {
  open = "open for %s", closing = "closing, open for %s", closed = "closed after %s",
}

--- The first line: the name to the left, the state to the right, if there is room for both.
local function headline(now, style)
  local state = STATES[now.state]:format(text.seconds(now.stats.uptime, style.ascii))
  local room = style.width - #state - 2
  if room < 4 then
    return compose({ { now.name, "title" } }, style)
  end
  return compose({ { text.fit(now.name, room, false, style.ascii), "title" }, { "  " },
    { state, now.state == "open" and "good" or "dim" } }, style)
end

local function fact(list, value, label, role)
  list[#list + 1] = { { value, role }, { " " .. label, "dim" } }
end

local function add_facts(lines, before, now, style)
  local stats, calls = now.stats, {}
  local ended = per_second(before, now, "done") + per_second(before, now, "failed")
  fact(calls, text.rate(ended), "calls/s")
  fact(calls, text.count(stats.queued), "queued")
  fact(calls, text.count(stats.running), "running")
  fact(calls, text.count(stats.done), "done")
  fact(calls, text.count(stats.failed), "failed", stats.failed > 0 and "bad" or nil)
  fact(calls, text.count(stats.cancelled), "cancelled", stats.cancelled > 0 and "warn" or nil)
  flow(lines, calls, style)
  local heap, busy, count, workers = 0, 0, size_of(now), {}
  for id, worker in ipairs(stats.workers) do
    heap = heap + worker.heap
    busy = busy + (id <= count and share_of(before, now, id, "busy") or 0)
  end
  if not before then
    busy = stats.utilisation * count
  end
  fact(workers, text.count(count), plural(count, "worker"))
  fact(workers, text.share(count > 0 and math.min(1, busy / count) or 0), "busy")
  fact(workers, text.bytes(heap), "heap")
  fact(workers, text.count(stats.restarts), plural(stats.restarts, "restart"),
    stats.restarts > 0 and "warn" or nil)
  if stats.written_off > 0 then
    fact(workers, text.count(stats.written_off), "stuck in C", "bad")
  end
  flow(lines, workers, style)
end

local WORKER_COLUMNS = {
  { head = "#", right = true, least = 3 },
  { head = "busy", least = BAR + 5, drop = 2 },
  { head = "cpu", right = true, least = 4, drop = 4 },
  { head = "heap", right = true, least = 7, drop = 3 },
  { head = "jobs", right = true, least = 5, drop = 6 },
  { head = "/s", right = true, least = 5, drop = 5 },
  { head = "for", right = true, least = 6, drop = 1 },
  { head = "runs", least = 8, shrinks = true },
}

local function worker_row(before, now, id, jobs, style)
  local worker, first = now.stats.workers[id], jobs and jobs[1]
  local busy = math.min(1, share_of(before, now, id, "busy"))
  local full, empty = text.bar(busy, BAR, style.ascii)
  local name = first and (first.task or "?") .. (#jobs > 1 and (" +%d"):format(#jobs - 1) or "")
    or now.state ~= "closed" and now.running and "idle" or ""
  return {
    { { text.count(id) } },
    { { full, busy > 0.9 and "warn" or "good" }, { empty, "dim" },
      { text.fit(text.share(busy), 5, true) } },
    { { text.share(math.min(9.99, share_of(before, now, id, "cpu"))) } },
    { { text.bytes(worker.heap) } },
    { { text.count(worker.jobs) } },
    { { text.rate(per_second(before, now, "workers", id, "jobs")) } },
    { { first and text.seconds(first.since, style.ascii) or "" } },
    { { name, not first and "dim" or nil } },
  }
end

--- Whether there is anything to see of a worker.
local function is_active(before, now, id, jobs)
  return jobs ~= nil or before ~= nil and (difference(before, now, "workers", id, "jobs") > 0
    or share_of(before, now, id, "busy") > 0.01)
end

--- The workers to show, by number, and how many others run something and do not. Those that do
-- come first.
local function choose_workers(before, now, jobs, limit)
  local active, idle = {}, {}
  for id = 1, size_of(now) do
    local list = is_active(before, now, id, jobs[id]) and active or idle
    list[#list + 1] = id
  end
  local shown, busy_left, idle_left = {}, 0, 0
  for _, id in ipairs(active) do
    if #shown < limit then
      shown[#shown + 1] = id
    else
      busy_left = busy_left + 1
    end
  end
  for _, id in ipairs(idle) do
    if #shown < limit then
      shown[#shown + 1] = id
    else
      idle_left = idle_left + 1
    end
  end
  table.sort(shown)
  return shown, busy_left, idle_left
end

local function ellipsis(style)
  return style.ascii and "..." or "…"
end

local function add_workers(lines, before, now, style)
  local jobs, rows = jobs_of(now), {}
  local shown, busy, idle = choose_workers(before, now, jobs, style.workers)
  for i, id in ipairs(shown) do
    rows[i] = worker_row(before, now, id, jobs[id], style)
  end
  if #rows == 0 then
    return
  end
  lines[#lines + 1] = ""
  add_table(lines, WORKER_COLUMNS, rows, style)
  local rest = {}
  rest[#rest + 1] = busy > 0 and ("%d more busy"):format(busy) or nil
  rest[#rest + 1] = idle > 0 and ("%d more idle"):format(idle) or nil
  if #rest > 0 then
    lines[#lines + 1] = compose({ { "  " .. ellipsis(style) .. " " .. table.concat(rest, ", "),
      "dim" } }, style)
  end
end

--- Each percentile has a column; what is dropped first is what the others tell about best.
local TASK_COLUMNS = {
  { head = "task", least = 8, shrinks = true },
  { head = "calls", right = true, least = 5, drop = 9 },
  { head = "/s", right = true, least = 5, drop = 1 },
  { head = "fail", right = true, least = 4, drop = 2 },
  { head = "p50", right = true, least = 6, drop = 6, group = "waits" },
  { head = "p90", right = true, least = 6, drop = 8, group = "waits" },
  { head = "p99", right = true, least = 6, drop = 5, group = "waits" },
  { head = "max", right = true, least = 6, drop = 7.5, group = "waits" },
  { head = "p50", right = true, least = 6, drop = 3, group = "runs" },
  { head = "p90", right = true, least = 6, drop = 7, group = "runs" },
  { head = "p99", right = true, least = 6, drop = 4, group = "runs" },
  { head = "max", right = true, least = 6, drop = 6.5, group = "runs" },
}

local function task_row(before, now, name, style)
  local task = now.stats.tasks[name]
  local row = {
    { { name } },
    { { text.count(task.runs) } },
    { { text.rate(per_second(before, now, "tasks", name, "runs")) } },
    { { text.count(task.failures), task.failures > 0 and "bad" or nil } },
  }
  for _, times in ipairs { task.wait, task.run } do
    for _, key in ipairs { "p50", "p90", "p99", "max" } do
      row[#row + 1] = { { text.seconds(times[key], style.ascii) } }
    end
  end
  return row
end

--- The tasks to show, by name: those that were called most; and how many others were called.
local function choose_tasks(now, limit)
  local names = {}
  for name, task in pairs(now.stats.tasks) do
    if task.runs > 0 then
      names[#names + 1] = name
    end
  end
  local tasks = now.stats.tasks
  table.sort(names, function(a, b)
    local x, y = tasks[a].runs, tasks[b].runs
    return x > y or x == y and a < b
  end)
  local others = math.max(0, #names - limit)
  for i = #names, limit + 1, -1 do
    names[i] = nil
  end
  table.sort(names)
  return names, others
end

local function add_tasks(lines, before, now, style)
  local names, others = choose_tasks(now, style.tasks)
  lines[#lines + 1] = ""
  if #names == 0 then
    lines[#lines + 1] = compose({ { "no calls yet", "dim" } }, style)
    return
  end
  local rows = {}
  for i, name in ipairs(names) do
    rows[i] = task_row(before, now, name, style)
  end
  add_table(lines, TASK_COLUMNS, rows, style)
  if others > 0 then
    lines[#lines + 1] = compose({ { ("  %s %d more"):format(ellipsis(style), others), "dim" } },
      style)
  end
end

-- --- views ---------------------------------------------------------------------------------------

local function style_of(given)
  given = given or {}
  return {
    width = given.width or 80, colour = given.colour, ascii = given.ascii,
    workers = given.workers or WORKERS, tasks = given.tasks or TASKS,
  }
end

--- The lines of a pool.
-- @tparam[opt] table before an earlier snapshot: rates are those since then
-- @tparam table now a snapshot
-- @tparam[opt] table given `width` (80), `colour`, `ascii`, and how many `workers` (16) and `tasks`
-- (12) it names at most
-- @treturn table lines, none wider than `width`
function M.pool(before, now, given)
  local style, lines = style_of(given), {}
  before = comparable(before, now)
  lines[1] = headline(now, style)
  add_facts(lines, before, now, style)
  add_workers(lines, before, now, style)
  add_tasks(lines, before, now, style)
  return lines
end

--- One line for a pool.
function M.summary(now, given)
  local stats = now.stats
  local style = style_of(given)
  local items = { { now.name, "title" }, { ("  %s  %s calls"):format(
    STATES[now.state]:format(text.seconds(stats.uptime, style.ascii)),
    text.count(stats.submitted)), "dim" } }
  if stats.failed > 0 then
    items[#items + 1] = { ("  %s failed"):format(text.count(stats.failed)), "bad" }
  end
  return compose(items, style)
end

--- One line of text.
function M.note(message, given)
  return compose({ { message, "dim" } }, style_of(given))
end

return M
