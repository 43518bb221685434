--- `treadle test`: runs busted's specs, each file in a process of its own, several at a time.
--
-- busted itself runs here, with its options, its configuration, its output handlers and its counts.
-- Only its files do not: where busted would run one, its process is listened to instead.
-- @module treadle.suite
local children = require "treadle.children" -- src/cli/children.c
local core = require "treadle.core"
local progress = require "treadle.suite_progress"
local replay = require "treadle.suite_replay"
local run = require "treadle.suite_run"

local M = {}

local TIMEOUT = 60

--- busted's parameters of luassert that an output handler may set, and that messages depend on.
local PARAMETERS = { "TableFormatLevel", "TableFormatShowRecursion",
  "TableErrorHighlightCharacter", "TableErrorHighlightColor" }

--- What runs a file of Lua: this program (src/cli/main.c). CODE is what children.c has prepared.
local CODE = "/proc/self/fd/11"
local TREADLE = { "/proc/self/exe", "%test-file", CODE }

--- Put something else in the place of a module until it is first asked for.
local function once(name, replace)
  local real = require(name)
  package.loaded[name] = function(...)
    package.loaded[name] = real
    return replace(real, ...)
  end
end

-- --- options -------------------------------------------------------------------------------------

local function is_count(n) return n >= 1 and n == math.floor(n) end
local function is_time(n) return n >= 0 end

--- Options of our own, beside busted's: on the command line, and in its configuration.
local NUMBERS = {
  jobs = { is_count, "must be a whole number, 1 or more" },
  timeout = { is_time, "must be a number, 0 or more" },
}

local WHOSE = { all = true, failed = true }

local function number_of(name, value)
  local is_right, problem = unpack(NUMBERS[name])
  local number = tonumber(value)
  if not number or not is_right(number) then
    return nil, ("argument to --%s %s"):format(name, problem)
  end
  return number
end

--- Teach the parser of the command line our options.
-- @tparam table given gets those that are there
local function define_options(cli, given)
  local function take_number(name, value)
    local problem
    given[name], problem = number_of(name, value)
    return given[name] and true or nil, problem
  end
  cli:option("--jobs=N", "treadle: how many files run at once", tostring(core.cores()),
    take_number)
  cli:option("--timeout=SECONDS", "treadle: end a file in which nothing happens for so long;"
    .. " 0: never", tostring(TIMEOUT), take_number)
  cli:option("--print=WHOSE", "treadle: show what `all` files print, or the `failed` ones", "all",
    function(_, value)
      given.print = value
      return WHOSE[value], "argument to --print must be all or failed"
    end)
  cli:flag("--[no-]progress", "treadle: on a terminal, a line that says how far the run is", true,
    function(_, value)
      given.progress = value
      return true
    end)
end

--- What busted's configuration and the command line say, in one; nil and what is wrong.
local function complete(options, given)
  for name in pairs(NUMBERS) do
    local number, problem = number_of(name, given[name] or options[name])
    if not number then
      return nil, "busted: error: " .. problem
    end
    options[name] = number
  end
  options.print = given.print or options.print
  if not WHOSE[options.print] then
    return nil, "busted: error: argument to --print must be all or failed"
  end
  if given.progress ~= nil then
    options.progress = given.progress
  end
  return options
end

--- What busted is not to do here: a file's process does it.
local HERE = { helper = "", e = {}, coverage = false }

-- --- running -------------------------------------------------------------------------------------

local function words_of(options, ignores_lua)
  if ignores_lua or not options.lua then
    return TREADLE
  end
  local words = {}
  for word in options.lua:gmatch("%S+") do
    words[#words + 1] = word
  end
  words[#words + 1] = CODE
  return words
end

--- What a file's process needs to know.
local function request_for(session, path)
  local options, parameters = {}, {}
  for k, v in pairs(session.options) do
    options[k] = v
  end
  options.ROOT, options["repeat"], options.directory = { path }, 1, "./"
  options.seed = session.busted.randomseed
  for _, name in ipairs(PARAMETERS) do
    parameters[name] = require("luassert"):get_parameter(name)
  end
  return { options = options, parameters = parameters, arguments = session.arguments }
end

--- Start the files of busted's, in the order in which it is about to want them.
local function start_run(session, root)
  local paths, job_of = {}, {}
  for _, child in ipairs(session.busted.context.children(root)) do
    if child.descriptor == "file" then
      paths[#paths + 1] = child.name
      job_of[child] = #paths
    end
  end
  session.run = run.new({
    jobs = session.options.jobs, timeout = session.options.timeout, words = session.words,
    lock = session.lock, tick = session.progress.show,
    request = function(path) return request_for(session, path) end,
  }, paths)
  for child, i in pairs(job_of) do
    job_of[child] = session.run.jobs[i]
  end
  session.job_of = job_of
end

local function end_run(session)
  if session.run then
    session.progress.hide()
    session.run:stop()
    session.run = nil
  end
end

--- Why a file is a failure, whatever its tests are; nil: it is none.
local function problem_of(job, is_done)
  if job.problem or job.killed then
    return job.problem or job.killed
  elseif not is_done then
    return (job.ending or "ended with exit code 0") .. " before its last test was done"
  elseif job.ending then
    return job.ending .. " after its last test"
  end
end

--- busted could not even begin (a helper that raises): so nobody can. Does not return then.
local function check_start(session, job, has_started)
  if not has_started and job.exit_code and job.exit_code ~= 0 and not job.killed then
    session.progress.hide()
    session.run:print(job)
    session.run:stop()
    io.stdout:flush()
    os.exit(job.exit_code, true)
  end
end

--- Listen to the file where busted would run it.
local function run_file(session, file)
  local busted = session.busted
  if not session.run then
    start_run(session, busted.context.parent(file))
  end
  local files, job = session.run, session.job_of[file]
  local listener = replay.new(busted, file)
  local has_started, is_done, problems = false, false, session.problems
  local prints_all = session.options.print == "all"
  for record in function() return files:next(job) end do
    session.progress.hide()
    if prints_all then
      files:print(job, record[1], record[2])
    end
    if record[3] == "event" then
      listener:event(record)
    end
    has_started = true
    is_done = record[3] == "done"
  end
  session.signal = children.caught()
  if session.signal then
    files:stop()
  end
  check_start(session, job, has_started)
  session.progress.hide()
  if prints_all then
    files:print(job)
  end
  local problem = problem_of(job, is_done)
  if problem then
    listener:fail(problem, core.now() - (job.over_at or core.now()))
  end
  if session.problems > problems then
    files:print(job) -- if it has not been
  end
  files:drop(job)
  if session.signal then
    busted.skipAll = true
  end
  if busted.skipAll then
    files:stop()
  end
end

--- What luacov does at the end of a process, where it is told to; its figures are complete now.
local function report_coverage(options)
  if options.coverage then
    local luacov = require "luacov.runner"
    local configuration = luacov.load_config(options["coverage-config-file"])
    for _, pattern in ipairs { "busted_bootstrap$", "busted%.", "luassert%.", "say%.", "pl%." } do
      table.insert(configuration.exclude, pattern)
    end
    if configuration.runreport then
      luacov.run_report(configuration)
    end
  end
end

--- Let busted's parts be as it needs them here.
local function prepare(session)
  local given = {}
  once("cliargs.core", function(real)
    local cli = real()
    local parse = cli.parse
    function cli.parse(...)
      define_options(cli, given)
      return parse(...)
    end
    return cli
  end)
  once("busted.modules.cli", function(real, ...)
    local cli = real(...)
    local parse = cli.parse
    function cli.parse(...)
      local options, problem = parse(...)
      if options then
        options, problem = complete(options, given)
      end
      if options then
        session.options = options
        session.words = words_of(options, session.ignores_lua)
        session.progress = progress.new(options.progress)
        options = setmetatable({}, { __index = options })
        for name, value in pairs(HERE) do
          options[name] = value
        end
      end
      return options, problem
    end
    return cli
  end)
  once("busted.execute", function(real, busted)
    session.busted = busted
    busted.register("file", function(file) run_file(session, file) end, { envmode = "insulate" })
    session.problems = 0
    for _, outcome in ipairs { "error", "failure" } do
      busted.subscribe({ outcome }, function()
        session.problems = session.problems + 1
        return nil, true
      end, { priority = 1 })
    end
    busted.subscribe({ "suite", "start" }, function()
      end_run(session)
      return nil, true
    end, { priority = 1 })
    local execute = real(busted)
    return function(...)
      children.catch()
      local has_room, lock = pcall(children.scratch)
      if not has_room then
        io.stderr:write("treadle test: ", lock, "\n")
        require("busted.compatibility").exit(1)
      end
      session.lock = lock
      execute(...)
      end_run(session)
    end
  end)
end

local LEAVE = {}

--- Run busted here; its exit code.
local function run_busted(session)
  local code = 0
  local compatibility = require "busted.compatibility"
  function compatibility.exit(wanted)
    code = wanted == 0 and 0 or 1
    error(LEAVE, 0)
  end
  prepare(session)
  local runner = require "busted.runner"
  -- Its caller's name is the program's, in what busted says.
  local program = assert(loadstring("local run = ... run { standalone = false }", "@busted"))
  local ok, err = xpcall(function() program(runner) end, function(err)
    return err == LEAVE and err or debug.traceback(tostring(err), 2)
  end)
  if not ok and err ~= LEAVE then
    io.stderr:write("treadle: ", err, "\n")
    return 1
  end
  return code
end

--- Run it.
-- @tparam table args what follows `treadle test`
-- @treturn number exit code
function M.main(args)
  local found, problem = pcall(require, "busted.runner")
  package.loaded["busted.runner"] = nil
  if not found then
    io.stderr:write("treadle test: busted is not here (luarocks install busted; Debian: apt install"
      .. " lua-busted)\n", tostring(problem), "\n")
    return 1
  end
  local session = { arguments = { unpack(args) } }
  for _, word in ipairs(args) do
    session.ignores_lua = session.ignores_lua or word == "--ignore-lua"
  end
  arg = { [0] = "busted", "--ignore-lua", unpack(args) } -- luacheck: globals arg
  local code = run_busted(session)
  if session.signal then
    return 128 + session.signal
  end
  if session.lock then
    report_coverage(session.options)
  end
  return code
end

return M
