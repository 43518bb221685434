--- The tasks of the server: what takes too long for a loop that others wait for.
-- The workers load this file; with `--inline` the host does.
local treadle = require "treadle"

local png = require "png"
local pbkdf2 = require "server.pbkdf2"
local picture = require "server.picture"
local template = require "server.template"

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"

local tasks = {}

-- What a client has done wrong is raised with a status, and arrives in the host as this table.
local function refuse(status, text)
  error({ status = status, text = text }, 0)
end

--- Hash a password.
tasks.hash = pbkdf2

--- Make a picture smaller: the one in the body, or one that is painted.
-- @tparam number size of the longer side
-- @param[opt] body a buffer with a PPM file
-- @return a buffer with a PNG file
function tasks.thumbnail(size, body)
  local source, problem
  if body then
    source, problem = picture.read_ppm(body)
    if not source then
      refuse(415, problem)
    end
  else
    source = picture.paint(1600, 1200)
  end
  local small = picture.shrink(source, size)
  if body then
    body:close()
  end
  local bytes = require("ffi").string(small.rgb, small.width * small.height * 3)
  local file = treadle.buffer(png.encode(small.width, small.height, bytes))
  return treadle.is_main and file or treadle.move(file)
end

local render -- compiled once in each worker

--- Render the page.
function tasks.page(title, rows)
  if not render then
    local file = assert(io.open(here .. "page.html"))
    render = template(file:read("*a"), "page.html")
    file:close()
  end
  return render { title = title, rows = rows }
end

return tasks
