--- `treadle trace`: shows a recording.
-- @module treadle.timeline_command
local options = require "treadle.options"
local timeline = require "treadle.timeline"

local M = {}

local USAGE = [[
usage: treadle trace FILE                print a summary of a recording (pool:trace)
       treadle trace FILE --html [OUT]   write a page for a browser: FILE.html, or OUT
       treadle trace FILE --svg [OUT]    write a picture: FILE.svg, or OUT
       treadle trace -h | --help         print this
]]

local FORMATS = {
  ["--html"] = { suffix = ".html", make = function(text) return timeline.page(text) end },
  ["--svg"] = { suffix = ".svg", make = function(_, events)
    return require("treadle.timeline_svg").draw(timeline.model(events))
  end },
}

local function complain(message)
  io.stderr:write("treadle trace: " .. message .. "\n")
  return 1
end

local function misuse(message)
  complain(message .. "\n" .. USAGE:sub(1, -2))
  return 2
end

local function write(path, text)
  local file, problem = io.open(path, "wb")
  local ok = file
  if file then
    ok, problem = file:write(text)
    local closed, why = file:close()
    ok, problem = ok and closed, problem or why
  end
  if not ok then
    return complain(("cannot write %s"):format(problem))
  end
  print("wrote " .. path)
  return 0
end

--- Run it.
-- @tparam table args what follows `treadle trace`
-- @treturn number exit code
function M.main(args)
  local path, format, out
  for _, word in ipairs(args) do
    if word == "-h" or word == "--help" then
      io.stdout:write(USAGE)
      return 0
    elseif FORMATS[word] and not format then
      format = FORMATS[word]
    elseif word:sub(1, 1) == "-" and #word > 1 then
      return misuse(FORMATS[word] and "one of --html and --svg at a time"
        or ("unknown option '%s', did you mean '%s'?"):format(word, options.nearest(word, FORMATS)))
    elseif not path then
      path = word
    elseif format and not out then
      out = word
    else
      return misuse(("'%s' is too much"):format(word))
    end
  end
  if not path then
    return misuse("a file is missing")
  end
  local text, events = timeline.read(path)
  if not text then
    return complain(events)
  elseif format then
    return write(out or path .. format.suffix, format.make(text, events))
  end
  io.stdout:write(timeline.summary(timeline.model(events)))
  return 0
end

return M
