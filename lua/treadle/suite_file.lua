--- A nursery of `treadle test`: a process that has loaded busted, and forks a child for each file
-- of specs. There busted runs the file, and every event of busted's is written to a pipe, with how
-- much was printed before it. src/cli/children.c has the numbers of the descriptors.
-- The LuaJIT that runs this need not be treadle's, so it is one function without upvalues.
-- @module treadle.suite_file

--- @tparam table wire treadle.suite_wire
return function(wire)
  local ffi = require "ffi"
  local EVENTS, ENDS, REQUESTS, LOCK, LAST = 10, 12, 13, 14, 14
  local GET_COPY, SET_FLAGS, CLOSE_ON_EXEC = 1030, 2, 1
  local APPEND = 0x401 -- O_WRONLY | O_APPEND
  local END_OF_FILE, LOCK_FILE, UNLOCK_FILE, DEATH_SIGNAL, KILL, INTERRUPTED = 2, 1, 0, 1, 9, 4

  -- Under names of our own, for a spec may declare the same.
  ffi.cdef [[
    long treadle_suite_write(int, const void *, size_t) __asm__("write");
    long treadle_suite_read(int, void *, size_t) __asm__("read");
    long treadle_suite_lseek(int, long, int) __asm__("lseek");
    int treadle_suite_open(const char *, int, ...) __asm__("open");
    int treadle_suite_close(int) __asm__("close");
    int treadle_suite_dup2(int, int) __asm__("dup2");
    int treadle_suite_fcntl(int, int, ...) __asm__("fcntl");
    int treadle_suite_lockf(int, int, long) __asm__("lockf");
    int treadle_suite_fork(void) __asm__("fork");
    int treadle_suite_waitpid(int, int *, int) __asm__("waitpid");
    int treadle_suite_getpid(void) __asm__("getpid");
    int treadle_suite_getppid(void) __asm__("getppid");
    int treadle_suite_setpgid(int, int) __asm__("setpgid");
    int treadle_suite_prctl(int, ...) __asm__("prctl");
  ]]
  local C = ffi.C
  local stdout, flush = io.stdout, io.stdout.flush
  local request, out, err -- of the child: what it is to run, and where its output goes

  local function write_all(fd, text)
    local at = 0
    while at < #text do
      local n = tonumber(C.treadle_suite_write(fd, ffi.cast("const char *", text) + at, #text - at))
      if n < 0 and ffi.errno() ~= INTERRUPTED then
        return
      end
      at = at + math.max(n, 0)
    end
  end

  local function send(...)
    pcall(flush, stdout) -- it may be closed
    write_all(EVENTS, wire.encode(tonumber(C.treadle_suite_lseek(out, 0, END_OF_FILE)),
      tonumber(C.treadle_suite_lseek(err, 0, END_OF_FILE)), ...))
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

  -- --- busted's parts ----------------------------------------------------------------------------

  local LEAVE, code = {}, nil -- what is raised where busted would leave, and its exit code

  --- Let busted's parts be as they need to be here.
  -- @treturn function busted's runner
  local function prepare()
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
    local exit = compatibility.exit
    function compatibility.exit(wanted)
      code = wanted
      error(LEAVE, 0)
    end
    local runner = require "busted.runner" -- keeps ours
    compatibility.exit = exit
    return runner
  end

  --- What busted loads later: it is loaded once, for all children.
  local LATER = {
    "busted", "busted.block", "busted.context", "busted.environment", "busted.execute",
    "busted.fixtures", "busted.languages.en", "busted.luajit", "busted.modules.files.lua",
    "busted.modules.files.moonscript", "busted.modules.helper_loader",
    "busted.modules.test_file_loader", "busted.options", "busted.status", "luassert",
    "luassert.match", "luassert.mock", "luassert.spy", "luassert.stub", "mediator", "pl.dir",
  }

  --- Run the file that was asked for, in a child.
  local function run(runner)
    request.arguments[0] = "busted"
    _G.arg = request.arguments
    local program = assert(loadstring("local run = ... run { standalone = false }", "@busted"))
    local ok, problem = xpcall(function() program(runner) end, function(problem)
      return problem == LEAVE and problem or debug.traceback(tostring(problem), 2)
    end)
    if ok or problem == LEAVE and has_started then
      send "done"
      return
    elseif problem ~= LEAVE then
      io.stderr:write("busted: ", problem, "\n")
    end
    os.exit(code or 1, true)
  end

  -- --- processes ---------------------------------------------------------------------------------

  local function set_close_on_exec(fd)
    C.treadle_suite_fcntl(fd, SET_FLAGS, ffi.cast("int", CLOSE_ON_EXEC))
  end

  --- Open a file that the command has open, in the place of a standard stream.
  -- @return one more descriptor of it, which a script does not close
  local function open_output(number, stream)
    local path = ("/proc/%d/fd/%d"):format(request.command, number)
    local fd = C.treadle_suite_open(path, APPEND)
    if fd < 0 then
      error("cannot open " .. path)
    end
    C.treadle_suite_dup2(fd, stream)
    local own = C.treadle_suite_fcntl(fd, GET_COPY, ffi.cast("int", LAST + 1))
    C.treadle_suite_close(fd)
    return own
  end

  --- Become the process of one file.
  local function become_child(nursery)
    C.treadle_suite_setpgid(0, 0)
    C.treadle_suite_prctl(DEATH_SIGNAL, ffi.cast("long", KILL))
    if C.treadle_suite_getppid() ~= nursery then
      os.exit(1) -- it was too late for that
    end
    C.treadle_suite_close(ENDS)
    C.treadle_suite_close(REQUESTS)
    out, err = open_output(request.out, 1), open_output(request.err, 2)
    stdout:setvbuf "line" -- what was printed before a crash is there
    send("pid", C.treadle_suite_getpid())
  end

  --- Wait until a child has ended.
  -- @return "exit" and its code, "signal" and its number
  local function wait_for(pid)
    local status = ffi.new "int[1]"
    while C.treadle_suite_waitpid(pid, status, 0) ~= pid do end
    local signal = status[0] % 128
    if signal ~= 0 then
      return "signal", signal
    end
    return "exit", math.floor(status[0] / 256) % 256
  end

  local bytes, rest = ffi.new "char[4096]", ""

  --- The next request, nil when there will be none.
  local function next_request()
    local found
    while not found do
      local n = tonumber(C.treadle_suite_read(REQUESTS, bytes, 4096))
      if n == 0 or n < 0 and ffi.errno() ~= INTERRUPTED then
        return nil
      end
      rest = wire.split(rest .. ffi.string(bytes, math.max(n, 0)), function(text)
        found = wire.decode(text)[1]
      end)
    end
    return found
  end

  for fd = EVENTS, LAST do
    set_close_on_exec(fd)
  end
  local nursery, runner = C.treadle_suite_getpid(), prepare()
  for _, name in ipairs(LATER) do
    pcall(require, name) -- a part that this busted does not have is not missed before it is used
  end
  collectgarbage() -- once, and not in each child
  collectgarbage()
  write_all(ENDS, wire.encode "ready")
  while true do
    request = next_request()
    if not request then
      return
    end
    local pid = C.treadle_suite_fork()
    if pid == 0 then
      become_child(nursery)
      run(runner)
      return
    elseif pid < 0 then
      error "cannot fork"
    end
    write_all(ENDS, wire.encode(wait_for(pid)))
  end
end
