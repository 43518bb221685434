--- Live views of pools: `pool:top()`, and what `treadle top` is told of them.
-- @module treadle.top
local core = require "treadle.core"
local errors = require "treadle.error"
local future = require "treadle.future"
local loop = require "treadle.loop"
local options = require "treadle.options"
local paint = require "treadle.top_paint"
local records = require "treadle.records"
local stats = require "treadle.stats"
local view = require "treadle.top_view"

core.open "board"
core.open "looks"

local M = {}

local INTERVAL, WIDTH, ROWS = 0.5, 80, 24
local STDERR = 2

--- How many timers run for views: the command waits for no view.
M.timers = 0

local methods = {}
local mt = { __name = "treadle.top", __index = methods }

-- --- the terminal --------------------------------------------------------------------------------

local function environment(name)
  local value = os.getenv(name)
  return value ~= "" and value or nil
end

--- What the user's terminal can show, as options for treadle.top_view: colours, unless NO_COLOR
-- forbids them, and more than ASCII, unless the locale is another one.
local function look_of_terminal()
  local locale = environment "LC_ALL" or environment "LC_CTYPE" or environment "LANG"
  return {
    colour = not environment "NO_COLOR" and environment "TERM" ~= "dumb",
    ascii = locale ~= nil and not locale:lower():find("utf%-?8"),
  }
end

--- The size of a terminal: that which COLUMNS says, or it says itself, else 80 by 24.
-- @return columns, rows; nil when the descriptor is no terminal
function M.size(fd)
  local columns, rows = core.terminal(fd)
  if columns then
    local wanted = tonumber(environment "COLUMNS")
    return wanted and wanted >= 1 and math.floor(wanted) or columns > 0 and columns or WIDTH,
      rows > 0 and rows or ROWS
  end
end

--- How a view is drawn there.
-- @tparam boolean is_terminal
-- @tparam number width
function M.style(is_terminal, width)
  local style = is_terminal and look_of_terminal() or {}
  style.width = width
  return style
end

-- --- snapshots -----------------------------------------------------------------------------------

--- Name the tasks of a list of what runs (core.pool_running).
local function name_running(list, names)
  for _, job in ipairs(list) do
    job.task = job.boots and "(loading)"
      or records.task_name({ names = names }, job.task) or "?"
  end
  return list
end

--- Complete what the board tells of a pool to a snapshot for treadle.top_view.
function M.complete(shown)
  local names = core.decode(shown.told)
  shown.stats = stats.named(shown.stats, names)
  shown.running = name_running(shown.running, names)
  return shown
end

--- Tell who shows the pools of this process of a new one.
function M.show(name, handle, names)
  core.pool_show(handle, name, core.encode(names))
end

local function state_of(pool)
  local handle, record = pool._handle, pool._record
  if record.closed and not future.is_pending(record.closed) or not core.pool_size(handle) then
    return "closed"
  end
  return core.pool_room(handle) and "open" or "closing"
end

local function snapshot(pool)
  local state, names = state_of(pool), pool._record.names
  return {
    name = pool.name, state = state, stats = pool:stats(),
    threads = core.pool_size(pool._handle) or 0,
    running = name_running(core.pool_running(pool._handle), names),
  }
end

-- --- the view of one pool ------------------------------------------------------------------------

--- Text of lines for what keeps all that it is given: a file, a pipe.
local function block(lines)
  return table.concat(lines, "\n") .. "\n"
end

local function draw(self)
  local now = snapshot(self.pool)
  local columns, rows = M.size(STDERR)
  local on_terminal = self.painter and columns
  local lines = view.pool(self.before, now, M.style(on_terminal, self.width or columns or WIDTH))
  self.before = now
  local text
  if on_terminal then
    text = self.painter:paint(lines, columns, rows)
  else
    text = (self.drawn and "\n" or "") .. block(lines)
  end
  self.drawn = true
  self.write(text)
end

--- What a script's `write` raises ends the view; nobody waits for it who could be told otherwise.
local function try_to_draw(self)
  local ok, err = pcall(draw, self)
  if not ok then
    self:_end()
    io.stderr:write(("treadle: a view of pool '%s' has ended: %s\n"):format(self.pool.name,
      errors.text(err)))
  end
end

local function tick(self)
  local timer = core.timer(self.interval)
  self.timer, M.timers = timer, M.timers + 1
  loop.add_waiter(timer, function()
    M.timers = M.timers - 1
    self.timer = nil
    if self.is_closed then
      return
    elseif state_of(self.pool) == "closed" then
      self:close()
      return
    end
    try_to_draw(self)
    if not self.is_closed then
      tick(self)
    end
  end)
end

function methods:_end()
  self.is_closed = true
  if self.timer and core.timer_stop(self.timer) then
    M.timers = M.timers - 1
    self.timer = nil
  end
end

--- Draw now, too.
function methods:draw()
  if getmetatable(self) ~= mt then
    options.misused("draw", "view", self)
  end
  if not self.is_closed then
    draw(self)
  end
end

--- Draw for the last time. What is drawn stays.
function methods:close()
  if getmetatable(self) ~= mt then
    options.misused("close", "view", self)
  end
  if not self.is_closed then
    self:_end()
    try_to_draw(self)
  end
end

local function check_interval(value)
  return type(value) == "number" and value > 0 and value < math.huge, "seconds, more than 0"
end

local OPTIONS = { interval = check_interval, write = "callable", width = "count", once = "boolean" }

local function write_stderr(text)
  io.stderr:write(text)
end

--- What `pool:top` does.
function M.open(pool, given)
  given = options.check(1, "top", given, OPTIONS, 2)
  if given.once then
    return block(view.pool(nil, snapshot(pool), M.style(false, given.width or WIDTH)))
  end
  local self = setmetatable({
    pool = pool, interval = given.interval or INTERVAL, width = given.width,
    write = given.write or write_stderr,
    painter = not given.write and M.size(STDERR) and paint.new() or nil,
  }, mt)
  draw(self)
  tick(self)
  if pool._record.closed then
    loop.add_waiter(pool._record.closed, function() self:close() end)
  end
  return self
end

return M
