--- Joins LÖVE: once a frame, when the game asks for its events (love.event.pump), what is ready is
-- run, within a budget of time. It comes about by itself where a game's main.lua requires treadle.
-- A wait outside of a coroutine holds the frame up, as Channel:demand does.
-- @module treadle.adapters.love
local core = require "treadle.core"

local M = {}
local require = require -- the script may have its own

--- `budget`: seconds of a frame after which nothing more is begun in it.
M.OPTIONS = { budget = "seconds" }

local BUDGET = 0.004

--- A wait in a frame that takes longer is told of, once: it shows as a stutter.
local STUTTER = 0.1

--- Whether this state is the game's own, not one of a love.thread.
function M.is_here()
  local love = rawget(_G, "love")
  return type(love) == "table" and type(love.event) == "table" and love.handlers ~= nil
end

--- All Lua files of the game, by their names in it.
local function read_all(folder, sources)
  for _, name in ipairs(love.filesystem.getDirectoryItems(folder)) do
    local path = folder == "" and name or folder .. "/" .. name
    local info = love.filesystem.getInfo(path)
    if info and info.type == "directory" then
      read_all(path, sources)
    elseif name:match "%.lua$" then
      sources[path] = love.filesystem.read(path)
    end
  end
  return sources
end

local function is_folder(path)
  local file = io.open(path .. "/main.lua", "rb")
  if file then
    file:close()
  end
  return file ~= nil
end

--- @param love the library
-- @tparam[opt] table given its options
function M.new(love, given)
  if not M.is_here() then
    error("treadle.attach: this is not a game's own state with love.event (require treadle in "
      .. "main.lua)", 0)
  end
  local attach = require "treadle.attach"
  local adapter = { name = "love", budget = given and given.budget or BUDGET }
  local frames, has_told = 0, false

  --- Tell of a frame that was held up.
  local function tell(seconds)
    if seconds > STUTTER and frames > 0 and not has_told then
      has_told = true
      io.stderr:write(debug.traceback(("treadle: a wait held up a frame for %.2f s: do it in a "
        .. "coroutine (treadle.spawn)"):format(seconds), 3), "\n")
    end
  end

  local failed -- what nobody has caught, of the turn or of a finalizer

  local function raise_failed()
    if failed then
      local message = failed
      failed = nil
      error(message, 0)
    end
  end

  function adapter.watch(_, turn)
    local event, pump = love.event, love.event.pump
    local is_watched = true
    local function frame(...)
      if is_watched then
        frames = frames + 1
        turn()
        raise_failed()
      end
      return pump(...)
    end
    event.pump = frame
    return function()
      is_watched = false
      if event.pump == frame then -- else somebody has wrapped it
        event.pump = pump
      end
    end
  end

  function adapter.rearm() end -- each frame looks at what is due

  function adapter.block(is_done, seconds)
    local start = core.now()
    attach.stall(is_done, seconds)
    tell(core.now() - start)
  end

  --- The error screen shows it.
  function adapter.report(message)
    failed = failed or message
  end

  --- Workers find modules as `require` in the game does: in its folder, or, packed as a .love file,
  -- among its files, which are sent along.
  function adapter.boot(boot)
    local source = love.filesystem.getSource()
    if is_folder(source) then
      boot.path = ("%s/?.lua;%s/?/init.lua;%s"):format(source, source, boot.path)
      local path = boot.file and source .. "/" .. boot.file
      if path and not boot.file:match "^/" and love.filesystem.getInfo(boot.file) then
        boot.file = path
      end
    else
      boot.sources = read_all("", {})
    end
  end

  return adapter
end

return M
