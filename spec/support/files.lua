--- Looking at the project's own files, from its root folder.
local files = {}

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

--- The files below src/ whose names match a shell pattern, sorted.
function files.sources(pattern)
  return files.lines_of(("find src -type f -name '%s' | sort"):format(pattern))
end

return files
