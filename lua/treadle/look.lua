--- What the workers of a pool execute now: `pool:backtrace()`.
-- @module treadle.look
local core = require "treadle.core"
local records = require "treadle.records"

core.open "looks"

local M = {}

--- The chunk's name as tracebacks show it.
local function short(source)
  local kind, name = source:match("^([@=])(.*)$")
  return kind and name or ('[string "%s"]'):format(source:match("^[^\n]*"))
end

--- What the line where a function begins calls it, nil if nobody can tell.
local function name_in(line)
  return line:match("function%s+([%w_.:]+)%s*%(") or line:match("([%w_.]+)%s*=%s*function%s*%(")
    or line:match("([%w_.]+)%s*=%s*[%w_.]+%s*{?%s*function%s*%(")
end

--- A reader of functions' names from their source files: each file is read once.
-- @treturn function of a chunk's name and a line
function M.namer()
  local files = {}
  return function(source, defined)
    local path = source:match("^@(.+)$")
    local names = path and files[path]
    if path and not names then
      names = {}
      local file = io.open(path)
      if file then
        local number = 0
        for line in file:lines() do
          number = number + 1
          names[number] = name_in(line)
        end
        file:close()
      end
      files[path] = names
    end
    return names and names[defined]
  end
end

--- One frame as a line of a traceback.
local function line_of(frame, namer)
  if frame.what == "main" or frame.what == "Lua" then
    local source = short(frame.source)
    local where = frame.line >= 0 and ("%s:%d"):format(source, frame.line) or source
    if frame.what == "main" then
      return where .. ": in main chunk"
    end
    local name = namer(frame.source, frame.defined)
    return name and ("%s: in function '%s'"):format(where, name)
      or ("%s: in function <%s:%d>"):format(where, source, frame.defined)
  elseif frame.what == "?" then
    return "(unknown function)"
  end
  return frame.what == "C" and "[C]: in a C function" or "[builtin]: in a function of LuaJIT's"
end

--- The text of a stack.
local function traceback(seen, namer)
  local lines = { "stack traceback:" }
  if seen.place == "collector" then
    lines[2] = "[C]: in the garbage collector"
  end
  for i, frame in ipairs(seen.frames or {}) do
    if i == core.STACK_INNER + 1 and seen.skipped > 0 then
      lines[#lines + 1] = ("...(%d more functions)"):format(seen.skipped)
    end
    lines[#lines + 1] = line_of(frame, namer)
  end
  if not seen.frames then
    lines[2] = "[C]: in a C function, or where its stack cannot be read"
  elseif #lines == 1 then
    lines[2] = "[C]: in treadle itself"
  end
  return table.concat(lines, "\n\t")
end

--- What every worker executes now: see `pool:backtrace`.
-- @param handle what `core.pool_open` returned
-- @tparam table record of the pool
function M.backtrace(handle, record)
  local list, namer = core.pool_look(handle), M.namer()
  for i, seen in ipairs(list) do
    list[i] = {
      worker = seen.worker,
      task = seen.task and records.task_name(record, seen.task),
      what = seen.boots and "load" or seen.task and "task" or "other",
      since = seen.since,
      traceback = traceback(seen, namer),
    }
  end
  return list
end

return M
