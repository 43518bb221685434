--- What the workers of a pool execute now: `pool:backtrace()`.
-- @module treadle.look
local core = require "treadle.core"
local records = require "treadle.records"

core.open "looks"

local M = {}

--- The chunk's name as tracebacks show it.
function M.short(source)
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
    local lines = path and files[path]
    if path and not lines then
      lines = {}
      local file = io.open(path)
      if file then
        for line in file:lines() do
          lines[#lines + 1] = line
        end
        file:close()
      end
      files[path] = lines
    end
    return lines and lines[defined] and name_in(lines[defined])
  end
end

--- Names of the functions of C and of LuaJIT that loaded modules have, by address and by number:
-- the same in all states.
local names = { C = {}, builtin = {} }

local function learn_names()
  local has_util, util = pcall(require, "jit.util")
  for module, functions in pairs(has_util and package.loaded or {}) do
    for name, fn in pairs(type(functions) == "table" and functions or {}) do
      if type(name) == "string" and type(fn) == "function" then
        local info = util.funcinfo(fn)
        local kind = info.ffid and info.ffid > 1 and "builtin" or "C"
        local id = kind == "builtin" and info.ffid or info.addr
        if id then
          names[kind][id] = module == "_G" and name or names[kind][id] or module .. "." .. name
        end
      end
    end
  end
end

--- A reader of these names: what is unknown is looked up once.
-- @treturn function of "C" or "builtin", and a number
function M.builtin_namer()
  local learned = false
  return function(kind, id)
    if not names[kind][id] and not learned then
      learned = true
      learn_names()
    end
    return names[kind][id]
  end
end

--- One frame as a line of a traceback.
local function line_of(frame, namer, builtins)
  if frame.what == "main" or frame.what == "Lua" then
    local source = M.short(frame.source)
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
  local name = builtins(frame.what, frame.id)
  return name and ("[C]: in function '%s'"):format(name) or "[C]: in a C function"
end

--- The text of a stack.
local function traceback(seen, namer, builtins)
  local lines = { "stack traceback:" }
  if seen.place == "collector" then
    lines[2] = "[C]: in the garbage collector"
  end
  for i, frame in ipairs(seen.frames or {}) do
    if i == core.STACK_INNER + 1 and seen.skipped > 0 then
      lines[#lines + 1] = ("...(%d more functions)"):format(seen.skipped)
    end
    lines[#lines + 1] = line_of(frame, namer, builtins)
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
  local list, namer, builtins = core.pool_look(handle), M.namer(), M.builtin_namer()
  for i, seen in ipairs(list) do
    list[i] = {
      worker = seen.worker,
      task = seen.task and records.task_name(record, seen.task),
      what = seen.boots and "load" or seen.task and "task" or "other",
      waiting = seen.waiting,
      since = seen.since,
      traceback = traceback(seen, namer, builtins),
    }
  end
  table.sort(list, function(a, b)
    if a.worker ~= b.worker then
      return a.worker < b.worker
    end
    return not a.waiting and b.waiting or false
  end)
  return list
end

return M
