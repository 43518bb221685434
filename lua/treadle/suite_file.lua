--- One file of specs of `treadle test`, in a process of its own: busted runs it, and every event of
-- busted's is written to a pipe, with how much was printed before it (src/cli/children.c has the
-- numbers of the descriptors).
-- The LuaJIT that runs this need not be treadle's, so it is one function without upvalues.
-- @module treadle.suite_file

--- @tparam table request `arguments`: of `treadle test`; `options`: what busted made of them and of
-- its configuration; `parameters`: of luassert; `path`: the file
-- @tparam table wire treadle.suite_wire
return function(request, wire)
  local ffi = require "ffi"
  local EVENTS, OUT, ERR, LOCK = 10, 12, 13, 14
  local CLOSE_ON_EXEC, END_OF_FILE, LOCK_FILE, UNLOCK_FILE = 1, 2, 1, 0
  local SET_FLAGS = 2

  -- Under names of our own, for a spec may declare the same.
  ffi.cdef [[
    long treadle_suite_write(int, const void *, size_t) __asm__("write");
    long treadle_suite_lseek(int, long, int) __asm__("lseek");
    int treadle_suite_fcntl(int, int, ...) __asm__("fcntl");
    int treadle_suite_lockf(int, int, long) __asm__("lockf");
  ]]
  local C = ffi.C
  local stdout, flush = io.stdout, io.stdout.flush

  --- What the file starts must not keep the pipe and the files open.
  for fd = EVENTS, LOCK do
    C.treadle_suite_fcntl(fd, SET_FLAGS, ffi.cast("int", CLOSE_ON_EXEC))
  end
  stdout:setvbuf "line" -- what was printed before a crash is there

  local function send(...)
    pcall(flush, stdout) -- it may be closed
    local text = wire.encode(tonumber(C.treadle_suite_lseek(OUT, 0, END_OF_FILE)),
      tonumber(C.treadle_suite_lseek(ERR, 0, END_OF_FILE)), ...)
    local at = 0
    while at < #text do
      local n = tonumber(C.treadle_suite_write(EVENTS, ffi.cast("const char *", text) + at,
        #text - at))
      if n < 0 and ffi.errno() ~= 4 then -- EINTR
        return
      end
      at = at + math.max(n, 0)
    end
  end

  --- Put something else in the place of a module until it is first asked for: a spec that uses
  -- busted's parts finds them as they are.
  local function once(name, replace)
    local real = require(name)
    package.loaded[name] = function(...)
      package.loaded[name] = real
      return replace(real, ...)
    end
  end

  -- --- events ------------------------------------------------------------------------------------

  local numbers, sent, count = {}, {}, 0
  local has_started = false

  --- What is new about an element: a list of those that must be known for it, itself last.
  local function describe(context, element, changes)
    local number = numbers[element]
    local known, is_new = sent[number] or {}, not number
    local change = { fields = {} }
    if is_new then
      count = count + 1
      number = count
      numbers[element], sent[number] = number, known
      local parent = context.parent(element)
      if parent and parent.descriptor ~= "suite" then
        change.parent = describe(context, parent, changes)
      end
      change.fields.trace, change.fields.attributes = element.trace, element.attributes
    end
    for k, v in next, element do
      local kind = type(v)
      if (kind == "string" or kind == "number" or kind == "boolean") and known[k] ~= v then
        known[k], change.fields[k] = v, v
      end
    end
    if is_new or next(change.fields) then
      change.number = number
      changes[#changes + 1] = change
    end
    return number
  end

  --- Of an event's arguments the first two may be elements; they are sent as numbers.
  local function send_event(context, channel, ...)
    local n, changes, elements = select("#", ...), {}, {}
    local args = { ... }
    for i = 1, math.min(n, 2) do
      local value = args[i]
      if type(value) == "table" and value.descriptor == "suite" then
        args[i], elements[i] = nil, 0
      elseif type(value) == "table" and (value.descriptor or context.parent(value)) then
        args[i], elements[i] = nil, describe(context, value, changes)
      end
    end
    send("event", channel, changes, elements, n, unpack(args, 1, n))
  end

  local OWN = { register = true, suite = true, exit = true } -- the other side has its own

  once("busted.core", function(real)
    local busted = real()
    local publish, context = busted.publish, busted.context
    function busted.publish(channel, ...)
      local name = type(channel) == "table" and channel[1]
      local is_outcome = name == "error" or name == "failure"
      if name and not OWN[name] and (is_outcome or not request.options.list) then
        send_event(context, channel, ...)
      end
      return publish(channel, ...)
    end
    return busted
  end)

  -- --- busted's parts ----------------------------------------------------------------------------

  once("busted.modules.cli", function()
    return { set_name = function() end, parse = function() return request.options end }
  end)

  once("busted.modules.output_handler_loader", function()
    return function()
      require "busted.languages.en"
      if request.options.lang ~= "en" then
        require("busted.languages." .. request.options.lang)
      end
      for name, value in next, request.parameters do
        require("luassert"):set_parameter(name, value)
      end
    end
  end)

  -- The filters are what busted sets up last before it loads the file.
  once("busted.modules.filter_loader", function(real)
    local load = real()
    return function(...)
      has_started = true
      send "started"
      return load(...)
    end
  end)

  -- The files share one file of figures, which luacov reads, adds to, and writes.
  once("busted.modules.luacov", function(real)
    local load = real()
    return function(...)
      local ok, problem = load(...)
      if ok then
        local luacov = require "luacov.runner"
        local save = luacov.save_stats
        luacov.configuration.runreport = false -- at the end, once
        function luacov.save_stats(...)
          C.treadle_suite_lockf(LOCK, LOCK_FILE, 0)
          local saved, why = pcall(save, ...)
          C.treadle_suite_lockf(LOCK, UNLOCK_FILE, 0)
          return saved or error(why, 0)
        end
      end
      return ok, problem
    end
  end)

  local compatibility = require "busted.compatibility"
  local exit, code = compatibility.exit, nil
  local LEAVE = {}
  function compatibility.exit(wanted)
    code = wanted
    error(LEAVE, 0)
  end
  local runner = require "busted.runner" -- keeps ours
  compatibility.exit = exit

  arg = request.arguments -- luacheck: globals arg
  arg[0] = "busted"
  local program = assert(loadstring("local run = ... run { standalone = false }", "@busted"))
  local ok, err = xpcall(function() program(runner) end, function(err)
    return err == LEAVE and err or debug.traceback(tostring(err), 2)
  end)
  if ok or err == LEAVE and has_started then
    send "done"
    return
  elseif err ~= LEAVE then
    io.stderr:write("busted: ", err, "\n")
  end
  os.exit(code or 1, true)
end
