--- Values on the way: `treadle examples/stream.lua [FILE...]`
-- For each file one task counts the lines, and emits how far it is, for a bar on a terminal, and
-- the longest line so far, whenever it finds a longer one. Without files it reads its own.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path

local treadle = require "treadle"
local tasks = {}

local PIECE = 65536

--- Reads the file in pieces. Emits numbers, bytes that were read, and tables, about a line.
function tasks.count(path)
  local file = assert(io.open(path, "rb"))
  local lines, longest, length, done = 0, -1, 0, 0
  for piece in function() return file:read(PIECE) end do
    local first = 1
    for stop in piece:gmatch("()\n") do
      lines, length = lines + 1, length + stop - first
      if length > longest then
        longest = length
        treadle.emit({ line = lines, length = length })
      end
      first, length = stop + 1, 0
    end
    length = length + #piece - first + 1
    done = done + #piece
    treadle.emit(done) -- waits while the host is busy: nothing piles up
  end
  file:close()
  return lines
end

if treadle.is_main then
  local progress = require "progress"
  local files = #arg > 0 and arg or { here .. "stream.lua" }
  treadle.using(treadle.pool(tasks), function(pool)
    for _, path in ipairs(files) do
      local file = assert(io.open(path, "rb"))
      local size = file:seek("end")
      file:close()
      local longest
      local f = pool.call.count(path)
      treadle.using(progress.new(path, size), function(bar)
        for news in f:stream() do
          if type(news) == "number" then
            bar:update(news)
          else
            longest = news
          end
        end
      end)
      print(("%s: %d lines, the longest is line %d with %d bytes"):format(path, f:await(),
        longest and longest.line or 0, longest and longest.length or 0))
    end
  end)
end

return tasks
