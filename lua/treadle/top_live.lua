--- The view of `treadle top`: what its thread does (src/cli/live.c), in a state of its own.
-- @module treadle.top_live
local core = require "treadle.core"
local paint = require "treadle.top_paint"
local top = require "treadle.top"
local view = require "treadle.top_view"

local M = {}

--- Seconds: between two looks at the pools; to the first one; from a script's output until it is
-- shown.
local INTERVAL, FIRST, OUTPUT = 0.5, 0.1, 0.02

--- How many pools that are closed are kept in view.
local CLOSED = 4

--- Lines of a pool's view beside those of its workers.
local OTHER_LINES = 9

--- The pools, in the order in which they were opened.
local function look()
  local list = core.board_read(CLOSED)
  for i = 1, math.floor(#list / 2) do
    list[i], list[#list + 1 - i] = list[#list + 1 - i], list[i]
  end
  for i, shown in ipairs(list) do
    list[i] = top.complete(shown)
  end
  return list
end

--- The lines of all pools.
-- @tparam table before snapshots by number; replaced by those of now
-- @tparam boolean is_last closed pools are shown as a whole, too
local function lines_of(before, style, is_last)
  local pools, lines = look(), {}
  for _, now in ipairs(pools) do
    local old = before[now.number]
    if #lines > 0 then
      lines[#lines + 1] = ""
    end
    if now.state == "closed" and not is_last then
      lines[#lines + 1] = view.summary(now, style)
    else
      for _, line in ipairs(view.pool(old, now, style)) do
        lines[#lines + 1] = line
      end
    end
  end
  for number in pairs(before) do
    before[number] = nil
  end
  for _, now in ipairs(pools) do
    before[now.number] = now
  end
  if #pools == 0 then
    lines[1] = view.note(is_last and "no pool was opened" or "no pool is open yet", style)
  end
  return lines
end

--- How many workers each pool's view may name, so that the terminal has room for all.
local function room(rows, pools)
  local count = 0
  for _, pool in pairs(pools) do
    count = count + (pool.state == "closed" and 0 or 1)
  end
  return math.max(2, math.floor((rows - 1) / math.max(1, count)) - OTHER_LINES)
end

--- Where there is no terminal only the last picture is written. Until then pools that are over are
-- let go of.
local function wait_for_end(screen)
  while not screen.wait(INTERVAL) do
    core.board_read(CLOSED)
  end
  local lines = lines_of({}, top.style(false), true)
  screen.write(table.concat(lines, "\n") .. "\n")
end

--- Show the pools at the bottom of the terminal, the script's output above, until the script ends.
-- @tparam table screen `wait(seconds)` returns whether the script has ended, and output of it;
-- `write(text)`; `fd`, where that goes
function M.run(screen)
  local painter, before, lines = paint.new(), {}, {}
  local due, shows = core.now() + FIRST, math.huge
  local is_over
  if not top.size(screen.fd) then
    return wait_for_end(screen)
  end
  repeat
    local output
    is_over, output = screen.wait(math.min(due, shows) - core.now())
    while output do
      painter:add(output)
      shows = math.min(shows, core.now() + OUTPUT)
      output = is_over and select(2, screen.wait(0))
    end
    local columns, rows = top.size(screen.fd)
    columns, rows = columns or 80, is_over and math.huge or rows or 24 -- it may be gone
    local now = core.now()
    if is_over or now >= due then
      local style = top.style(true, columns)
      style.workers = not is_over and room(rows, before) or nil
      lines = lines_of(before, style, is_over)
      due = now + INTERVAL
      shows = now
    end
    if now >= shows then
      screen.write(painter:paint(lines, columns, rows, is_over))
      shows = math.huge
    end
  until is_over
end

return M
