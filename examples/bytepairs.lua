--- Draws which byte follows which in all text files below some folders, on all cores, as a picture:
-- a glow of 256 x 256 points, the first byte downwards, the second one to the right. And proves it:
-- this state then draws it again alone, and the bytes have to agree.
--
--   treadle examples/bytepairs.lua [OUT.png] [FOLDER...]
--
-- What it shows: parallel loops. `treadle.pmap` counts the files, batch by batch; `treadle.pfor`
-- filters the picture row by row, in buffers that all workers share.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path

local ffi = require "ffi"
local treadle = require "treadle"
local uv = require "luv"
local png = require "png"
local progress = require "progress"
local textfiles = require "textfiles"

local arguments = require "arguments" ("bytepairs", [=[
usage: treadle bytepairs.lua [OUT.png] [FOLDER...]
Draws which byte follows which in the text files below the folders (/usr/share/common-licenses and
/usr/share/doc), into build/bytepairs.png (into bytepairs.png where there is no folder build).
]=])
local DEFAULT_FOLDERS = { "/usr/share/common-licenses", "/usr/share/doc" }
local BATCHES = 64
local KIB = 2 ^ 10
local SCALE = 3 -- pixels of a point, along each side
local SIZE = 256 * SCALE
local RADIUS = 12 -- of the glow, in pixels

-- --- what is drawn -------------------------------------------------------------------------------

--- How often which byte follows which in some pieces of files. Runs in a worker.
local function count(pieces)
  local C = require "ffi"
  local counts = C.new("int32_t[65536]")
  for _, piece in ipairs(pieces) do
    local file = assert(io.open(piece.path, "rb"))
    file:seek("set", piece.first)
    local text = file:read(piece.last - piece.first + 1) or "" -- and one of the next piece
    file:close()
    local bytes = C.cast("const uint8_t *", text)
    for i = 0, #text - 2 do
      local pair = bytes[i] * 256 + bytes[i + 1]
      counts[pair] = counts[pair] + 1
    end
  end
  return counts
end

--- The share of a pixel at some distance in the glow of another.
local function weights()
  local list, sum = {}, 0
  for i = -RADIUS, RADIUS do
    list[i] = math.exp(-(i / RADIUS * 2.5) ^ 2)
    sum = sum + list[i]
  end
  for i = -RADIUS, RADIUS do
    list[i] = list[i] / sum
  end
  return list
end

--- The steps from counts to colours: each is a function of a row, and writes that row alone.
local function filters(light, glow, rgb)
  local share = weights()
  local size, radius = SIZE, RADIUS

  local function across(y)
    local from, to = light.ptr + y * size, glow.ptr + y * size
    for x = 0, size - 1 do
      local sum = 0
      for i = math.max(-radius, -x), math.min(radius, size - 1 - x) do
        sum = sum + from[x + i] * share[i]
      end
      to[x] = sum
    end
  end

  local function down(y)
    local from, light_row, to = glow.ptr, light.ptr + y * size, rgb.ptr + y * size * 3
    local first, last = math.max(-radius, -y), math.min(radius, size - 1 - y)
    for x = 0, size - 1 do
      local sum = 0
      for i = first, last do
        sum = sum + from[(y + i) * size + x] * share[i]
      end
      local bright = math.min(1, 0.6 * light_row[x] + 1.2 * sum)
      to[3 * x] = 255 * bright ^ 1.2
      to[3 * x + 1] = 255 * bright ^ 2.2
      to[3 * x + 2] = 90 * bright + 165 * bright ^ 5
    end
  end

  return { across, down }
end

--- A picture from counts; `each_row(fn)` calls `fn(y)` for all rows.
local function draw(counts, each_row)
  local light, glow = treadle.buffer("float", SIZE * SIZE), treadle.buffer("float", SIZE * SIZE)
  local rgb = treadle.buffer("uint8_t", SIZE * SIZE * 3)
  local most = 1
  for pair = 0, 65535 do
    most = math.max(most, counts[pair])
  end
  for y = 0, SIZE - 1 do
    for x = 0, SIZE - 1 do
      local n = counts[math.floor(y / SCALE) * 256 + math.floor(x / SCALE)]
      light.ptr[y * SIZE + x] = math.log(1 + n) / math.log(1 + most)
    end
  end
  for _, filter in ipairs(filters(light, glow, rgb)) do
    each_row(filter)
  end
  return rgb:string()
end

local function add(total, counts)
  for pair = 0, 65535 do
    total[pair] = total[pair] + counts[pair]
  end
end

-- --- on all cores, and alone ---------------------------------------------------------------------

local function draw_parallel(batches)
  local total = ffi.new("double[65536]")
  treadle.using(progress.new("counting", #batches), function(bar)
    local all = treadle.pmap(count, batches, { progress = function(done) bar:update(done) end })
    for _, counts in ipairs(all:await()) do
      add(total, counts)
    end
  end)
  return draw(total, function(filter) treadle.pfor(0, SIZE - 1, filter):await() end)
end

local function draw_sequential(batches)
  local total = ffi.new("double[65536]")
  for _, batch in ipairs(batches) do
    add(total, count(batch))
  end
  return draw(total, function(filter)
    for y = 0, SIZE - 1 do
      filter(y)
    end
  end)
end

-- --- the program ---------------------------------------------------------------------------------

local function timed(fn, ...)
  collectgarbage()
  local start = treadle.now()
  local result = fn(...)
  return result, treadle.now() - start
end

local function parse(args)
  local out = arguments:picture()
  local folders = {}
  for _, word in ipairs(args) do
    arguments:help(word)
    if word:find("^%-") then
      arguments:fail("unknown option '%s'", word)
    elseif word:find("%.png$") then
      out = word
    elseif (uv.fs_stat(word) or {}).type ~= "directory" then
      arguments:fail("there is no folder '%s'", word)
    else
      folders[#folders + 1] = word
    end
  end
  if #folders == 0 then
    for _, folder in ipairs(DEFAULT_FOLDERS) do
      if uv.fs_stat(folder) then
        folders[#folders + 1] = folder
      end
    end
  end
  return out, folders
end

local out, folders = parse(arg)
local file, message = io.open(out, "wb") -- before the work: it may fail
if not file then
  arguments:fail("cannot write %s", message)
end
local found = textfiles.find(folders) -- reads all files once, so that both passes find them cached
local batches = textfiles.cut(found.files, math.max(4 * KIB, math.ceil(found.bytes / BATCHES)))
local parallel, parallel_time = timed(draw_parallel, batches)
local sequential, sequential_time = timed(draw_sequential, batches)
assert(file:write(png.encode(SIZE, SIZE, parallel)))
assert(file:close())
print(("picture     %s, %d x %d pixels"):format(out, SIZE, SIZE))
print(("pairs       %d bytes in %d files"):format(found.bytes, #found.files))
print(("sequential  %.3f s"):format(sequential_time))
print(("parallel    %.3f s, %d workers, their start included"):format(parallel_time,
  treadle.cores()))
print(("speed-up    %.2f"):format(sequential_time / parallel_time))
if parallel ~= sequential then
  io.stderr:write("bytepairs: the parallel and the sequential picture differ\n")
  os.exit(1)
end
print("every byte agrees with the sequential picture")
