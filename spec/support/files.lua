--- Files and shell text; looking at the project's own files, from its root folder.
local files = {}

--- A text as one word of shell text.
function files.quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- The first line that a command prints.
function files.line_of(command)
  local pipe = assert(io.popen(command))
  local line = pipe:read("*l")
  pipe:close()
  return line
end

--- Run a line of shell text: its output and error output, its exit code.
function files.output_of(command)
  local pipe = assert(io.popen(command .. " 2>&1; echo $?"))
  local text, status = pipe:read("*a"):match("^(.-)(%d+)\n$")
  pipe:close()
  return text, tonumber(status)
end

--- The lines that a command prints.
function files.lines_of(command)
  local list = {}
  for line in files.output_of(command):gmatch("[^\n]+") do
    list[#list + 1] = line
  end
  return list
end

function files.read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function files.write(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
  return path
end

--- A path without "." and "..".
function files.normal(path)
  local parts = {}
  for part in path:gmatch("[^/]+") do
    if part == ".." then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return table.concat(parts, "/")
end

--- The files below src/ whose names match a shell pattern, sorted.
function files.sources(pattern)
  return files.lines_of(("find src -type f -name '%s' | sort"):format(pattern))
end

return files
