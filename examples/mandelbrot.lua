--- Renders a tiny copy of the Mandelbrot set, deep in its seahorse valley, into a PNG on all cores,
-- and proves the picture: this state then renders it again alone, and the bytes have to agree.
--
--   treadle examples/mandelbrot.lua [OUT.png] [WIDTH HEIGHT [ITERATIONS]]
--
-- What it shows: number crunching that LuaJIT compiles in every worker, results that travel as
-- strings, bands of rows of unequal cost that find an idle worker by themselves, a progress bar.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path

local ffi = require "ffi"
local treadle = require "treadle"
local png = require "png"
local progress = require "progress"

local arguments = require "arguments" ("mandelbrot", [=[
usage: treadle mandelbrot.lua [OUT.png] [WIDTH HEIGHT [ITERATIONS]]
Without arguments: 1280 x 960 pixels, 2000 iterations, into build/mandelbrot.png
(into mandelbrot.png where there is no folder build).
]=])
local CENTER_X, CENTER_Y, VIEW_HEIGHT = -0.7436429, 0.1318264, 0.000022
local BAND = 8 -- rows a call: enough calls that all workers end at about the same time
local SAMPLES = 2 -- a pixel is the mean of SAMPLES x SAMPLES points
local ESCAPE = 1000 -- squared radius: so far outside, the colours no longer show single steps

-- A ring of colours, as position, red, green, blue.
local GRADIENT = {
  { 0.00, 4, 10, 66 },
  { 0.16, 30, 100, 200 },
  { 0.42, 238, 250, 255 },
  { 0.64, 255, 172, 10 },
  { 0.84, 70, 16, 24 },
  { 1.00, 4, 10, 66 },
}
local COLOURS = 4096
local palette = ffi.new("uint8_t[?]", COLOURS * 3)
for i = 0, COLOURS - 1 do
  local position, k = i / COLOURS, 1
  while GRADIENT[k + 1][1] <= position do
    k = k + 1
  end
  local from, to = GRADIENT[k], GRADIENT[k + 1]
  local share = (position - from[1]) / (to[1] - from[1])
  share = share * share * (3 - 2 * share) -- no kink where two colours meet
  for channel = 2, 4 do
    palette[i * 3 + channel - 2] = from[channel] + (to[channel] - from[channel]) * share
  end
end

local tasks = {}

-- The index in the palette of a point; nil inside the set.
local function colour_of(cx, cy, iterations)
  local x, y, xx, yy, n = 0, 0, 0, 0, 0
  while xx + yy <= ESCAPE and n < iterations do
    y = 2 * x * y + cy
    x = xx - yy + cx
    xx, yy, n = x * x, y * y, n + 1
  end
  if xx + yy <= ESCAPE then
    return nil
  end
  local smooth = n + 1 - math.log(math.log(xx + yy) / math.log(ESCAPE)) / math.log(2)
  return math.floor(math.log(smooth) * 0.9 * COLOURS) % COLOURS
end

--- The task: render the rows `first` to `last`, counted from 0.
-- @return their pixels, three bytes each
function tasks.render(width, height, iterations, first, last)
  local pixels, at = ffi.new("uint8_t[?]", (last - first + 1) * width * 3), 0
  local step = VIEW_HEIGHT / (height * SAMPLES)
  local left = CENTER_X - step * width * SAMPLES / 2
  local top = CENTER_Y + VIEW_HEIGHT / 2
  for row = first, last do
    for column = 0, width - 1 do
      local red, green, blue = 0, 0, 0
      for sample = 0, SAMPLES * SAMPLES - 1 do
        local x = column * SAMPLES + sample % SAMPLES + 0.5
        local y = row * SAMPLES + math.floor(sample / SAMPLES) + 0.5
        local colour = colour_of(left + x * step, top - y * step, iterations)
        if colour then
          red = red + palette[colour * 3]
          green = green + palette[colour * 3 + 1]
          blue = blue + palette[colour * 3 + 2]
        end
      end
      pixels[at] = red / SAMPLES ^ 2
      pixels[at + 1] = green / SAMPLES ^ 2
      pixels[at + 2] = blue / SAMPLES ^ 2
      at = at + 3
    end
  end
  return ffi.string(pixels, at)
end

local function render_parallel(width, height, iterations)
  local bands, done = {}, 0
  treadle.using(treadle.pool(tasks), function(pool)
    treadle.using(progress.new("rendering", height), function(bar)
      local futures = {}
      for first = 0, height - 1, BAND do
        local last = math.min(first + BAND, height) - 1
        futures[#futures + 1] = pool.call.render(width, height, iterations, first, last)
      end
      for i, future in treadle.as_completed(futures) do
        bands[i] = future:await()
        done = done + #bands[i] / (width * 3)
        bar:update(done)
      end
    end)
  end)
  return table.concat(bands)
end

local function render_sequential(width, height, iterations)
  return tasks.render(width, height, iterations, 0, height - 1)
end

local function timed(fn, ...)
  collectgarbage()
  local start = treadle.now()
  local result = fn(...)
  return result, treadle.now() - start
end

local function main(...)
  local out, width, height, iterations = arguments:drawing({ ... }, "ITERATIONS", 2000, 1000000)
  local file, message = io.open(out, "wb") -- before the work: it may fail
  if not file then
    arguments:fail("cannot write %s", message)
  end
  local parallel, parallel_time = timed(render_parallel, width, height, iterations)
  assert(file:write(png.encode(width, height, parallel)))
  assert(file:close())
  local sequential, sequential_time = timed(render_sequential, width, height, iterations)
  print(("picture     %s, %d x %d pixels"):format(out, width, height))
  print(("sequential  %.3f s"):format(sequential_time))
  print(("parallel    %.3f s, %d workers, their start included"):format(
    parallel_time, treadle.cores()))
  print(("speed-up    %.2f"):format(sequential_time / parallel_time))
  if parallel ~= sequential then
    io.stderr:write("mandelbrot: the parallel and the sequential picture differ\n")
    os.exit(1)
  end
  print("every byte agrees with the sequential picture")
end

if treadle.is_main then
  main(...)
end

return tasks
