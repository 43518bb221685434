--- The line of `treadle test` that says how far it is: on a terminal, below what was printed last.
-- @module treadle.suite_progress
local core = require "treadle.core"

core.open "board"

local M = {}

local STDERR = 2

--- Seconds between two pictures.
local PAUSE = 0.1

-- A line is made below this one, which may be the screen's last; the cursor stays where it was.
local MAKE_ROOM, BELOW, BACK = "\027D\027[A", "\0277\027[B\r", "\027[K\0278"

--- When there are several, the one that has run for the longest time is the one to know.
local function longest(run)
  local found
  for _, job in ipairs(run.running) do
    if not found or job.begun < found.begun then
      found = job
    end
  end
  return found
end

local function text_of(run)
  local job = longest(run)
  local text = ("%d of %d files done, %d failures"):format(run.ended, #run.jobs, run.problems)
  if job then
    text = text .. (", longest: %s, %d s"):format(job.path, core.now() - job.begun)
  end
  return text
end

--- @return an object with `show(run)` and `hide()`, which does nothing where there is no terminal
function M.new(is_wanted)
  local columns = is_wanted and os.getenv "TERM" ~= "dumb" and core.terminal(STDERR)
  local shown, last = false, -math.huge
  return {
    show = function(run)
      local now = core.now()
      if not columns or now - last < PAUSE then
        return
      end
      last, columns = now, core.terminal(STDERR) or columns
      local width = columns > 0 and columns or 80
      io.stdout:flush()
      io.stderr:write(MAKE_ROOM, BELOW, text_of(run):sub(1, width - 1), BACK)
      shown = true
    end,
    hide = function()
      if shown then
        io.stderr:write(BELOW, BACK)
        shown = false
      end
    end,
  }
end

return M
