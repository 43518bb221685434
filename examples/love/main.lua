-- A picture that is computed in tasks, tile by tile, while a sprite moves on: click to zoom in.
--
--   love examples/love                      play
--   love examples/love --screenshot=PATH    draw one picture, measure frames with tasks and
--                                           without, write PATH (PNG) and PATH.rgba, end
local treadle = require "treadle"

local SIZE, TILE, RADIUS = 512, 64, 24
local FIRST = { x = -2, y = -1.25, scale = 2.5 / SIZE }

local pool, picture
local view, drawing
local calls = {}
local measure -- with --screenshot: what is measured now, and the frames so far

-- Draw a view: what was under way for the last one is of no use any more.
local function draw(new_view)
  view = new_view
  for _, call in ipairs(calls) do
    call:cancel()
  end
  calls = {}
  local corners = {}
  for top = 0, SIZE - 1, TILE do
    for left = 0, SIZE - 1, TILE do
      calls[#calls + 1] = pool.call.tile(view, left, top, TILE)
      corners[#calls] = { left, top }
    end
  end
  local mine = calls
  drawing = treadle.spawn(function()
    for i, call in treadle.as_completed(mine) do
      if calls ~= mine then -- a click has begun another one
        return
      end
      local tile = love.image.newImageData(TILE, TILE, "rgba8", call:await())
      picture:replacePixels(tile, nil, 1, corners[i][1], corners[i][2])
    end
  end)
end

function love.load(arguments)
  pool = treadle.pool("tasks", { threads = math.max(1, treadle.cores() - 1) })
  picture = love.graphics.newImage(love.image.newImageData(SIZE, SIZE))
  for _, word in ipairs(arguments) do
    local path = word:match "^%-%-screenshot=(.+)$"
    measure = path and { path = path, what = "start", frames = {} } or measure
  end
  if not measure then
    draw(FIRST)
  end
end

function love.mousepressed(x, y)
  local scale = view.scale / 2
  draw {
    x = view.x + x * view.scale - SIZE / 2 * scale, y = view.y + y * view.scale - SIZE / 2 * scale,
    scale = scale,
  }
end

local function sprite_position()
  local t = love.timer.getTime()
  return SIZE / 2 + SIZE / 3 * math.cos(t), SIZE / 2 + SIZE / 3 * math.sin(1.7 * t)
end

function love.draw()
  love.graphics.draw(picture)
  local x, y = sprite_position()
  if measure then
    x, y = math.floor(x), math.floor(y)
    measure.sprite = ("sprite %d %d %d"):format(x, y, RADIUS)
  end
  love.graphics.circle("fill", x, y, RADIUS)
end

-- --- with --screenshot ---------------------------------------------------------------------------

local function report()
  local sum, longest = 0, 0
  for _, seconds in ipairs(measure.frames) do
    sum, longest = sum + seconds, math.max(longest, seconds)
  end
  print(("%-6s %4d frames, %.2f ms each, the longest %.2f ms"):format(measure.what,
    #measure.frames, sum / #measure.frames * 1e3, longest * 1e3))
end

local function begin(what)
  report()
  measure.what, measure.frames = what, {}
end

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end

-- The picture is there: take it as it is on the screen, and compute it once more in one frame.
local function finish()
  begin "inline"
  love.graphics.captureScreenshot(function(image)
    write(measure.path, image:encode("png"):getString())
    write(measure.path .. ".rgba", image:getString())
    print(measure.sprite)
    local tile = require("tasks").tile
    for top = 0, SIZE - 1, TILE do
      for left = 0, SIZE - 1, TILE do
        tile(FIRST, left, top, TILE)
      end
    end
    measure.is_over = true
  end)
end

function love.update(seconds)
  if not measure then
    return
  end
  measure.frames[#measure.frames + 1] = seconds
  if measure.is_over and measure.what == "inline" and #measure.frames > 1 then
    report()
    love.event.quit()
  elseif measure.what == "start" and #measure.frames == 10 then
    begin "idle"
  elseif measure.what == "idle" and #measure.frames == 60 then
    begin "tasks"
    draw(FIRST)
  elseif measure.what == "tasks" and drawing:state() ~= "pending" then
    drawing:await() -- raises what has gone wrong
    finish()
  end
end
