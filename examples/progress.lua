--- A progress bar on standard error: drawn on a terminal, silent everywhere else.
-- `close` gives the line back, so `treadle.using(progress.new(...), fn)` leaves a clean line
-- also when `fn` raises.
local uv = require "luv"

local WIDTH = 40

local methods = {}
local mt = { __index = methods }

--- Start a bar that counts from 0 to `total`; without a total, only the label is shown.
local function new(label, total)
  local bar = setmetatable({ label = label, total = total }, mt)
  bar.visible = uv.guess_handle(2) == "tty"
  bar:update(0)
  return bar
end

local function render(bar, done)
  if not bar.total then
    return bar.label .. " ..."
  end
  local share = bar.total > 0 and done / bar.total or 1
  local full = math.floor(share * WIDTH)
  local blocks = ("#"):rep(full) .. ("."):rep(WIDTH - full)
  return ("%s [%s] %3d %%"):format(bar.label, blocks, math.floor(share * 100))
end

function methods:update(done)
  if not self.visible then
    return
  end
  local line = render(self, done)
  if line ~= self.line then
    self.line = line
    io.stderr:write("\r", line)
  end
end

function methods:close()
  if self.visible then
    io.stderr:write("\r\27[K")
    self.visible = false
  end
end

return { new = new }
