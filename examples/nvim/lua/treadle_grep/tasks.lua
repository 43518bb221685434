--- What the workers of treadle_grep do: they find files, and lines in them. They are no Neovim:
-- there is no `vim` here.
local treadle = require "treadle"

local tasks = {}

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- The files below a folder, without those of git's own, sorted.
function tasks.files(folder)
  local pipe = assert(io.popen(("find %s -name .git -prune -o -type f -print"):format(
    quote(folder))))
  local list = {}
  for path in pipe:lines() do
    list[#list + 1] = path
  end
  pipe:close()
  table.sort(list)
  return list
end

--- The lines of some files in which `pattern` is found, as the quickfix list wants them.
-- @tparam table paths
-- @tparam string pattern
-- @tparam boolean plain it is no Lua pattern, but what is looked for
function tasks.search(paths, pattern, plain)
  local hits = {}
  for _, path in ipairs(paths) do
    treadle.check() -- a new search has cancelled this one
    local file = io.open(path, "rb")
    local text = file and file:read "*a" or ""
    if file then
      file:close()
    end
    if not text:find("\0", 1, true) then -- else it is no text
      local number = 0
      for line in (text:match "[^\n]$" and text .. "\n" or text):gmatch "([^\n]*)\n" do
        number = number + 1
        local first = line:find(pattern, 1, plain)
        if first then
          hits[#hits + 1] = { filename = path, lnum = number, col = first, text = line }
        end
      end
    end
  end
  return hits
end

return tasks
