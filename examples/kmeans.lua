--- Paints a picture and reduces it to a few colours (k-means) on all cores, in one shared buffer,
-- and proves it: this state then does the same alone, and the bytes have to agree.
--
--   treadle examples/kmeans.lua [OUT.png] [WIDTH HEIGHT [COLOURS]]
--
-- What it shows: one call for each worker, and all else in shared memory. The workers take bands of
-- rows by an atomic integer, add their sums to those of the others, and meet at a barrier after
-- each round.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path

local ffi = require "ffi"
local treadle = require "treadle"
local png = require "png"
local atomics = treadle.atomics

local arguments = require "arguments" ("kmeans", [=[
usage: treadle kmeans.lua [OUT.png] [WIDTH HEIGHT [COLOURS]]
Without arguments: 1280 x 960 pixels in 16 colours, into build/kmeans.png
(into kmeans.png where there is no folder build).
]=])
local BAND = 8 -- rows that a worker takes at once: so few that all end at about the same time
local ROUNDS = 100 -- at most; the colours have settled before

local tasks = {}

-- --- one band of rows ----------------------------------------------------------------------------

-- The places of the first and the last byte of a band.
local function span(job, first, last)
  return first * job.width * 3, (last + 1) * job.width * 3 - 1
end

-- Waves that bend each other.
local function paint(job, first, last)
  local pixels, sin, cos = job.pixels.ptr, math.sin, math.cos
  local at = span(job, first, last)
  for row = first, last do
    for column = 0, job.width - 1 do
      local x, y = 4 * column / job.height, 4 * row / job.height
      local bend = sin(1.3 * x + 2 * sin(0.9 * y + 1))
      local wave = sin(1.1 * y + 1.7 * bend + cos(0.7 * x))
      local hue, light = 2.2 * wave + 0.5 * x, 0.62 + 0.38 * sin(3 * (bend + wave) + y)
      pixels[at] = 255 * light * (0.5 + 0.5 * cos(hue))
      pixels[at + 1] = 255 * light * (0.5 + 0.45 * cos(hue + 1.4))
      pixels[at + 2] = 255 * light * (0.55 + 0.45 * cos(hue + 2.5))
      at = at + 3
    end
  end
end

-- The number of the colour that is nearest to a pixel, and the square of its distance.
local function nearest(colours, count, red, green, blue)
  local best, least = 0, math.huge
  for k = 0, count - 1 do
    local r, g, b = red - colours[3 * k], green - colours[3 * k + 1], blue - colours[3 * k + 2]
    local distance = r * r + g * g + b * b
    if distance < least then
      best, least = k, distance
    end
  end
  return best, least
end

-- Add the pixels of a band to the sums of their colours: red, green, blue, how many; and, behind
-- all colours, the squares of the distances. All are whole numbers, so their order does not matter.
local function add_up(job, colours, first, last, sums)
  local pixels, count = job.pixels.ptr, job.count
  local from, to = span(job, first, last)
  for at = from, to, 3 do
    local red, green, blue = pixels[at], pixels[at + 1], pixels[at + 2]
    local k, distance = nearest(colours, count, red, green, blue)
    sums[4 * k] = sums[4 * k] + red
    sums[4 * k + 1] = sums[4 * k + 1] + green
    sums[4 * k + 2] = sums[4 * k + 2] + blue
    sums[4 * k + 3] = sums[4 * k + 3] + 1
    sums[4 * count] = sums[4 * count] + distance
  end
end

-- Give the pixels of a band their colours.
local function recolour(job, colours, first, last)
  local pixels, count = job.pixels.ptr, job.count
  local from, to = span(job, first, last)
  for at = from, to, 3 do
    local k = nearest(colours, count, pixels[at], pixels[at + 1], pixels[at + 2])
    for channel = 0, 2 do
      pixels[at + channel] = colours[3 * k + channel]
    end
  end
end

-- --- one worker ----------------------------------------------------------------------------------

-- The bands that this worker gets of a pass over the picture: each goes to whoever asks first.
local function bands(job, pass)
  return function()
    local first = atomics.add(job.taken, pass, 1) * BAND
    if first < job.height then
      return first, math.min(first + BAND, job.height) - 1
    end
  end
end

-- Pixels from all over the picture, as colours to begin with.
local function first_colours(job)
  local colours = ffi.new("double[?]", job.count * 3)
  for k = 0, job.count - 1 do
    local pixel = math.floor((k + 0.5) * job.width * job.height / job.count)
    for channel = 0, 2 do
      colours[3 * k + channel] = job.pixels:get(3 * pixel + channel)
    end
  end
  return colours
end

-- Move each colour to the mean of its pixels; whether that changes any.
local function move(job, colours, sums)
  local is_moved = false
  for k = 0, job.count - 1 do
    local pixels = tonumber(sums:get(4 * k + 3))
    for channel = 0, pixels > 0 and 2 or -1 do
      local mean = math.floor(tonumber(sums:get(4 * k + channel)) / pixels + 0.5)
      is_moved = is_moved or mean ~= colours[3 * k + channel]
      colours[3 * k + channel] = mean
    end
  end
  return is_moved
end

--- The task: do a part of everything, together with all others who were given the same job.
-- @return the number of rounds; the mean square of a pixel's distance in the first and the last one
function tasks.work(job)
  for first, last in bands(job, 0) do
    paint(job, first, last)
  end
  job.barrier:wait()
  local colours, errors, round = first_colours(job), {}, 0
  repeat
    round = round + 1
    local own, sums = ffi.new("double[?]", 4 * job.count + 1), job.sums[round]
    for first, last in bands(job, round) do
      add_up(job, colours, first, last, own)
    end
    for i = 0, #sums - 1 do
      atomics.add(sums, i, own[i])
    end
    job.barrier:wait() -- now the sums are the whole picture's: all move the colours alike
    errors[round] = tonumber(sums:get(4 * job.count)) / (job.width * job.height)
  until not move(job, colours, sums) or round == ROUNDS
  for first, last in bands(job, ROUNDS + 1) do
    recolour(job, colours, first, last)
  end
  return round, errors[1], errors[round]
end

-- --- all of them ---------------------------------------------------------------------------------

-- What `team` workers share. Each pass has its own integer, and each round its own sums: nobody has
-- to wait until they are zero again.
local function new_job(width, height, count, team)
  local job = {
    width = width, height = height, count = count,
    pixels = treadle.buffer("uint8_t", width * height * 3),
    taken = treadle.buffer("int32_t", ROUNDS + 2),
    sums = {},
    barrier = treadle.barrier(team),
  }
  local sums = treadle.buffer("int64_t", ROUNDS * (4 * count + 1))
  for round = 1, ROUNDS do
    job.sums[round] = sums:slice((round - 1) * (4 * count + 1), 4 * count + 1)
  end
  return job
end

local function draw_parallel(width, height, count)
  local team = treadle.cores()
  return treadle.using(treadle.pool(tasks, { threads = team }), function(pool)
    local job, calls = new_job(width, height, count, team), {}
    for i = 1, team do
      calls[i] = pool.call.work(job)
    end
    local ok, err = treadle.all(calls):pawait()
    if not ok then
      pool:terminate() -- the others would wait at the barrier for the one that failed
      error(err, 0)
    end
    return job.pixels:string(), calls[1]:await()
  end)
end

local function draw_alone(width, height, count)
  local job = new_job(width, height, count, 1)
  return (function(...) return job.pixels:string(), ... end)(tasks.work(job))
end

-- --- the program ---------------------------------------------------------------------------------

-- The results of a function as a list, with its time.
local function timed(fn, ...)
  collectgarbage()
  local start = treadle.now()
  local results = { fn(...) }
  results.time = treadle.now() - start
  return results
end

local function main(...)
  local out, width, height, count = arguments:drawing({ ... }, "COLOURS", 16, 256)
  local file, message = io.open(out, "wb") -- before the work: it may fail
  if not file then
    arguments:fail("cannot write %s", message)
  end
  local parallel = timed(draw_parallel, width, height, count)
  local alone = timed(draw_alone, width, height, count)
  local picture, rounds, before, after = unpack(parallel)
  assert(file:write(png.encode(width, height, picture)))
  assert(file:close())
  print(("picture     %s, %d x %d pixels"):format(out, width, height))
  print(("colours     %d, after %d rounds; mean squared error %.1f, at first %.1f"):format(
    count, rounds, after, before))
  print(("sequential  %.3f s"):format(alone.time))
  print(("parallel    %.3f s, %d workers, their start included"):format(parallel.time,
    treadle.cores()))
  print(("speed-up    %.2f"):format(alone.time / parallel.time))
  for i = 1, 4 do
    if parallel[i] ~= alone[i] then
      io.stderr:write("kmeans: the parallel and the sequential picture differ\n")
      os.exit(1)
    end
  end
  print("every byte agrees with the sequential picture")
end

if treadle.is_main then
  main(...)
end

return tasks
