--- Pools: making them, their options, calls.
local files = require "files"
local helpers = require "helpers"
local treadle = require "treadle"

--- Every name of the module: some are loaded when they are first used.
local function treadle_names()
  local names = {}
  for name in files.read("docs/index.md"):gmatch("`treadle%.([%a_]+)") do
    names[name] = true
  end
  return names
end

describe("treadle.pool", function()
  local done
  local pools = {}

  -- A pool that the test need not close.
  local function open(tasks, options)
    local pool = treadle.pool(tasks or "tasks", options or { threads = 1 })
    pools[#pools + 1] = pool
    return pool
  end

  local function load_error(name, options)
    local ok, err = pcall(treadle.pool, name, options or { threads = 2 })
    assert.is_false(ok)
    assert.equal("load", err.kind)
    return err
  end

  setup(function()
    done = helpers.watch()
  end)

  after_each(function()
    for i, pool in ipairs(pools) do
      pool:close(helpers.TIMEOUT)
      pools[i] = nil
    end
  end)

  teardown(helpers.clean)

  describe("of a module", function()
    it("calls the functions that it exports", function()
      assert.equal(42, open().call.add(20, 22):await())
    end)

    it("does not load the module in the host", function()
      open()
      assert.is_nil(package.loaded.tasks)
    end)

    it("finds the module through the host's package.path", function()
      helpers.module("just_written", "return { f = function() return 'found' end }")
      assert.equal("found", open("just_written").call.f():await())
    end)

    it("names the missing module and where it was looked for", function()
      local err = load_error("no_such_module")
      assert.matches("module 'no_such_module' not found", err.message, 1, true)
      assert.matches("no_such_module.lua", tostring(err), 1, true)
    end)

    it("says that a path is no module's name, and what the name is", function()
      for path, name in pairs {
        ["no_such.lua"] = "not a path: 'no_such'$",
        ["./no_such.lua"] = "not a path: 'no_such'$",
        ["sub/no_such"] = "not a path: 'sub%.no_such'$",
        ["/srv/no_such.lua"] = "not a path: 'no_such', with '/srv/%?%.lua' in package%.path$",
      } do
        assert.matches(name, load_error(path).message)
      end
    end)

    it("finds a module by a name that looks like a path", function()
      helpers.module("plain_name", "return { f = function() return 'found' end }")
      local path = package.searchpath("plain_name", package.path)
      package.path = path:gsub("plain_name", "?") .. ";" .. package.path
      assert.equal("found", open("./plain_name").call.f():await())
    end)

    it("gives the position of a syntax error", function()
      helpers.module("broken_syntax", "return {\n  f = = 1\n}")
      assert.matches("broken_syntax.lua:2:", load_error("broken_syntax").message, 1, true)
    end)

    it("tells where the pool was to be made", function()
      local line
      local function make()
        line = debug.getinfo(1, "l").currentline + 1
        local _ = treadle.pool("no_such_module")
      end
      local ok, err = pcall(make)
      assert.is_false(ok)
      assert.matches("awaited at:\n\t[^\n]*pool_spec.lua:" .. line .. ": in function 'make'",
        (err.traceback:gsub("<[^>]*>", "'make'")))
    end)

    it("gives the worker's traceback of an error while it is loaded", function()
      helpers.module("broken_load", "local function deep()\n  error('too early')\nend\ndeep()")
      local err = load_error("broken_load")
      assert.matches("broken_load.lua:2: too early", err.message, 1, true)
      assert.matches("stack traceback", err.traceback, 1, true)
      assert.matches("broken_load.lua:4:", err.traceback, 1, true)
    end)

    it("tells what was raised while it is loaded, whatever that is", function()
      for raised, text in pairs {
        ["{ code = 7 }"] = "the error is a table, not a text",
        ["nil"] = "the error is a nil, not a text",
        ["setmetatable({}, { __tostring = function() return 'in words' end })"] = "in words",
      } do
        helpers.module("object_load", "error(" .. raised .. ")")
        package.loaded.object_load = nil
        local err = load_error("object_load")
        assert.equal(text, err.message)
        assert.matches("object_load.lua:1:", err.traceback, 1, true)
      end
    end)

    it("names max_memory if a worker needs more to start", function()
      local ok, err = pcall(treadle.pool, "tasks", { threads = 1, max_memory = 1000 })
      assert.same({ false, "memory", "a worker does not fit into max_memory (1000 bytes)" },
        { ok, err.kind, err.message })
    end)

    it("names an export that is no task", function()
      helpers.module("broken_export", "return { fine = print, answer = 42 }")
      local message = load_error("broken_export").message
      assert.matches("'answer'", message, 1, true)
      assert.matches("number", message, 1, true)
    end)

    it("says what a module returns instead of a table", function()
      helpers.module("broken_return", "return 'a string'")
      assert.matches("string", load_error("broken_return").message, 1, true)
      helpers.module("returns_nothing", "local x = 1")
      assert.matches("returns_nothing", load_error("returns_nothing").message, 1, true)
    end)
  end)

  describe("of a table", function()
    local SCRIPT = [[
      local treadle = require "treadle"
      local offset = arg[1]
      local tasks = {
        add = function(a, b) return a + b + offset end,
        where = function() return treadle.is_main, treadle.worker.id end,
      }
      if treadle.is_main then
        local pool = treadle.pool(tasks, { threads = 2 })
        print(pool.call.add(20, 20):await())
        print(pool:run("where", {}, { worker = 2 }):await())
        pool:close()
      end
      return tasks
    ]]

    for _, program in ipairs { "luajit", "treadle" } do
      it("runs the file again in the workers of " .. program, function()
        local out, err, code = helpers.child(program, SCRIPT, 2)
        assert.same({ "42\nfalse\t2\n", "", 0 }, { out, err, code })
      end)

      it("names the guard that is missing, under " .. program, function()
        local out, err, code = helpers.child(program, [[
          local treadle = require "treadle"
          local tasks = { f = function() return 1 end }
          local pool = treadle.pool(tasks, { threads = 2 })
          print(pool.call.f():await())
          return tasks
        ]])
        assert.equal("", out)
        assert.matches("if treadle.is_main then", err, 1, true)
        assert.equal(1, code)
      end)
    end

    it("names the guard that is missing in a module", function()
      helpers.module("no_guard", [[
        local treadle = require "treadle"
        treadle.pool("tasks")
        return { f = function() end }
      ]])
      local err = load_error("no_guard")
      assert.matches("if treadle.is_main then", err.message, 1, true)
      assert.matches("no_guard.lua:2:", err.message, 1, true)
    end)

    it("ships functions that the file does not export, upvalues included", function()
      local tasks, base = {}, { value = 100 }
      for i = 1, 3 do
        tasks["f" .. i] = function(x) return base.value + i + x end
      end
      local pool = open(tasks)
      for i = 1, 3 do
        assert.equal(100 + i + 1000, pool.call["f" .. i](1000):await())
      end
    end)

    it("ships functions of a string of code", function()
      local out, err, code = helpers.shell([[exec luajit -e '
        local treadle = require "treadle"
        local pool = treadle.pool({ f = function(x) return x + 1 end }, { threads = 1 })
        print(pool.call.f(1):await())
        pool:close()']])
      assert.same({ "2\n", "", 0 }, { out, err, code })
    end)

    it("says why a function can be neither found nor sent", function()
      local co = coroutine.create(function() end)
      local ok, err = pcall(treadle.pool, { f = function() return co end }, { threads = 1 })
      assert.is_false(ok)
      assert.matches("'f'", tostring(err), 1, true)
      assert.matches("coroutine", tostring(err), 1, true)
    end)

    it("mixes functions, tasks and imports", function()
      local pool = open {
        double = function(x) return 2 * x end,
        triple = treadle.task { fn = function(x) return 3 * x end },
        add = treadle.import { module = "tasks", name = "add" },
      }
      assert.same({ 42, 63, 3 }, treadle.all {
        pool.call.double(21), pool.call.triple(21), pool.call.add(1, 2) }:await())
    end)

    it("refuses what is no task, at the caller's line", function()
      local message = helpers.error_here(function() treadle.pool({ answer = 42 }) end)
      assert.matches("'answer'", message, 1, true)
      message = helpers.error_here(function() treadle.pool({ print }) end)
      assert.matches("names of tasks are strings", message, 1, true)
      message = helpers.error_here(function() treadle.pool({}) end)
      assert.matches("at least one task", message, 1, true)
    end)
  end)

  describe("checks", function()
    it("its first argument", function()
      assert.equal("bad argument #1 to 'pool' (string or table expected, got nil)",
        helpers.error_here(function() treadle.pool() end))
      assert.matches("got number", helpers.error_here(function() treadle.pool(1) end), 1, true)
    end)

    it("that nobody sets its size by assignment", function() -- it did not take, in silence
      local pool = open()
      assert.equal("pool.threads cannot be set: pool:resize(n) changes the size",
        helpers.error_here(function() pool.threads = 7 end))
      pool.mine = "kept"
      assert.equal("kept", pool.mine)
    end)

    it("names of options, and knows the nearest", function()
      assert.matches("unknown option 'thread', did you mean 'threads'?",
        helpers.error_here(function() treadle.pool("tasks", { thread = 1 }) end), 1, true)
      assert.matches("did you mean 'concurrency'?",
        helpers.error_here(function() treadle.pool("tasks", { concurency = 1 }) end), 1, true)
      assert.matches("unknown option '1'",
        helpers.error_here(function() treadle.pool("tasks", { 4 }) end), 1, true)
    end)

    local WRONG = {
      threads = { 0, -1, 1.5, "2", 1e9, 0 / 0, math.huge, {} },
      concurrency = { 0, 1.5, "1", false },
      timeout = { -1, "1", 0 / 0, {} },
      terminate_timeout = { -1, "1" },
      max_payload = { 0, -5, "1k", 0 / 0 },
      init = { 1, "", print },
      teardown = { 1, {} },
      name = { 1, "", {} },
    }
    for option, values in pairs(WRONG) do
      it("values of option " .. option, function()
        for _, value in ipairs(values) do
          local options = { [option] = value }
          local message = helpers.error_here(function() treadle.pool("tasks", options) end)
          assert.matches("bad argument #2 to 'pool'", message, 1, true)
          assert.matches("'" .. option .. "'", message, 1, true)
        end
      end)
    end

    it("that options are a table", function()
      assert.equal("bad argument #2 to 'pool' (table expected, got number)",
        helpers.error_here(function() treadle.pool("tasks", 4) end))
    end)

    it("that data can be sent, and names the path", function()
      local bad = { data = { deep = coroutine.create(print) } }
      local message = helpers.error_here(function() treadle.pool("tasks", bad) end)
      assert.matches("data", message, 1, true)
      assert.matches("deep", message, 1, true)
    end)

    it("that a single task is not given for a table of them", function()
      local task = treadle.task { fn = print }
      assert.matches("task:pool()",
        helpers.error_here(function() treadle.pool(task) end), 1, true)
    end)

    it("that its methods are called with a colon", function()
      local pool = open()
      assert.matches("colon", helpers.error_here(function() pool.close() end), 1, true)
      assert.matches("colon", helpers.error_here(function() pool.run("add") end), 1, true)
      assert.matches("colon", helpers.error_here(function() pool.broadcast("id") end), 1, true)
      assert.matches("colon", helpers.error_here(function() pool.terminate() end), 1, true)
    end)
  end)

  describe("option", function()
    it("threads says how many workers there are", function()
      local pool = open("tasks", { threads = 3 })
      assert.same({ 1, 2, 3 }, pool:broadcast("id"):await())
    end)

    it("threads is treadle.cores() if it is not given", function()
      local pool = open("tasks", {})
      assert.equal(treadle.cores(), #pool:broadcast("id"):await())
    end)

    it("threads may be 64", function()
      local pool = open("tasks", { threads = 64 })
      local ids = pool:broadcast("id"):await()
      for i = 1, 64 do
        assert.equal(i, ids[i])
      end
    end)

    it("concurrency lets that many jobs of one worker wait at once", function()
      local pool, path = open("tasks", { threads = 1, concurrency = 3 }), helpers.new_path()
      local list = {}
      for i = 1, 3 do
        list[i] = pool.call.meet(path, 3)
      end
      assert.same({ 3, 3, 3 }, treadle.all(list):await())
    end)

    it("concurrency 1, the default, starts a job when the one before has ended", function()
      local pool, path = open(), helpers.new_path()
      treadle.all { pool.call.log_twice(path, "a"), pool.call.log_twice(path, "b") }:await()
      assert.same({ "start a", "end a", "start b", "end b" }, helpers.lines(path))
    end)

    it("concurrency is never exceeded", function()
      local pool, path = open("tasks", { threads = 1, concurrency = 2 }), helpers.new_path()
      local list = {}
      for i = 1, 6 do
        list[i] = pool.call.log_twice(path, tostring(i))
      end
      treadle.all(list):await()
      local now, most = 0, 0
      for _, line in ipairs(helpers.lines(path)) do
        now = now + (line:match("^start") and 1 or -1)
        most = math.max(most, now)
      end
      assert.equal(2, most)
    end)

    it("data is treadle.worker.data", function()
      local data = { list = { 1, 2, 3 }, text = "x" }
      data.self = data
      local _, _, got = open("tasks", { threads = 1, data = data }).call.worker():await()
      assert.same({ 1, 2, 3 }, got.list)
      assert.equal(got, got.self)
    end)

    it("name is the workers' and stands in errors", function()
      local pool = open("tasks", { threads = 1, name = "my workers" })
      local id, name = pool.call.worker():await()
      assert.same({ 1, "my workers" }, { id, name })
      assert.matches("my workers", tostring(pool), 1, true)
    end)

    it("name is the module's if it is not given", function()
      local _, name = open().call.worker():await()
      assert.equal("tasks", name)
    end)

    it("init runs once in each worker before its first job, teardown before its end", function()
      helpers.module("hooks", [[
        local treadle = require "treadle"
        local M, ready = {}, 0
        local function log(what)
          local file = io.open(treadle.worker.data, "a")
          file:write(what, " ", treadle.worker.id, "\n")
          file:close()
        end
        function M.start() ready = ready + 1 log("init") end
        function M.stop() log("teardown") end
        function M.ready() return ready end
        return M
      ]])
      local path = helpers.new_path()
      local pool = treadle.pool("hooks",
        { threads = 3, init = "start", teardown = "stop", data = path })
      assert.same({ 1, 1, 1 }, pool:broadcast("ready"):await())
      assert.same({ 1, 1, 1 }, pool:broadcast("ready"):await())
      local lines = helpers.lines(path)
      table.sort(lines)
      assert.same({ "init 1", "init 2", "init 3" }, lines)
      pool:close()
      lines = helpers.lines(path)
      table.sort(lines)
      assert.same({ "init 1", "init 2", "init 3", "teardown 1", "teardown 2", "teardown 3" }, lines)
    end)

    it("init that raises is an error of loading", function()
      helpers.module("bad_init", "return { start = function() error('no licence') end }")
      local err = load_error("bad_init", { threads = 2, init = "start" })
      assert.matches("bad_init.lua:1: no licence", err.message, 1, true)
      assert.matches("bad_init.lua:1:", err.traceback, 1, true)
    end)

    it("init may wait", function()
      helpers.module("slow_init", [[
        local treadle = require "treadle"
        local ready
        return {
          start = function() treadle.sleep(0.01) ready = true end,
          is_ready = function() return ready end,
        }
      ]])
      assert.is_true(open("slow_init", { threads = 1, init = "start" }).call.is_ready():await())
    end)

    it("init and teardown must be exports", function()
      assert.matches("'nope'", load_error("tasks", { threads = 1, init = "nope" }).message, 1, true)
      assert.matches("'nope'", load_error("tasks", { threads = 1, teardown = "nope" }).message, 1,
        true)
    end)

    it("teardown that raises is told on stderr and harms nothing", function()
      helpers.module("bad_end", "return { f = print, stop = function() error('stuck lid') end }")
      local out, err, code = helpers.child("luajit", [[
        local treadle = require "treadle"
        treadle.pool("bad_end", { threads = 1, teardown = "stop" }):close()
        print "closed"
      ]])
      assert.equal("closed\n", out)
      assert.matches("stuck lid", err, 1, true)
      assert.equal(0, code)
    end)

    it("max_payload limits arguments and results", function()
      local pool = open("tasks", { threads = 1, max_payload = 1000 })
      assert.equal(500, pool.call.echo(("x"):rep(500)):and_then(string.len):await())
      local ok, err = pool.call.echo(("x"):rep(2000)):pawait()
      assert.same({ false, "payload" }, { ok, err.kind })
      ok, err = pool:run("random", { 500 }):pawait()
      assert.same({ false, "payload" }, { ok, err.kind })
      assert.equal(3, pool.call.add(1, 2):await())
    end)

    it("timeout is that of tasks that name none", function()
      local pool = open("tasks", { threads = 1, timeout = 0.02, concurrency = 10 })
      local ok, err = pool.call.sleep(1000):pawait()
      assert.same({ false, "timeout" }, { ok, err.kind })
      assert.equal("late", pool.call.slow(1000):await())
    end)
  end)

  describe("call", function()
    it("keeps nils among arguments and results", function()
      local pool = open()
      local function check(n, ...)
        assert.equal(n, select("#", ...))
        return ...
      end
      check(4, pool.call.echo(1, nil, 3, nil):await())
      check(0, pool.call.echo():await())
      check(1, pool.call.echo(nil):await())
      check(3, pool.call.echo(nil, nil, nil):await())
      assert.equal(5, pool.call.count(nil, 1, nil, nil, nil):await())
      assert.equal(0, pool.call.count():await())
    end)

    it("with a colon says that it wants a dot", function()
      local pool = open()
      local err = select(2, pool.call:echo(1):pawait())
      assert.equal("payload", err.kind)
      assert.equal("cannot send a table with a metatable that is no registered class, "
        .. "'treadle.calls' (arguments[1]): call it with a dot, call.echo(...)", err.message)
    end)

    it("takes many arguments", function()
      local pool = open()
      local list = {}
      for i = 1, 200 do
        list[i] = i
      end
      assert.same(list, { pool.call.echo(unpack(list)):await() })
    end)

    it("names the tasks there are when there is none of that name", function()
      local pool = open { add = function() end, mul = function() end }
      assert.equal("pool 'pool_spec' has no task 'nope'; it has: add, mul",
        helpers.error_here(function() return pool.call.nope(1) end))
    end)

    it("copies tables at the moment of the call", function()
      local pool, t = open(), { 1 }
      local f = pool.call.echo(t)
      t[1] = 2
      assert.same({ 1 }, f:await())
    end)

    it("rejects what cannot travel, with its path, and no worker sees it", function()
      local pool, path = open(), helpers.new_path()
      local ok, err = pool.call.note(path, { items = { 1, 2, coroutine.create(print) } }):pawait()
      assert.is_false(ok)
      assert.equal("payload", err.kind)
      assert.matches("arguments[2].items[3]", err.message, 1, true)
      assert.equal("note", err.task)
      assert.equal("", helpers.read(path))
    end)

    it("starts jobs in the order in which they were called", function()
      local pool, path, expected = open(), helpers.new_path(), {}
      local list = {}
      for i = 1, 300 do
        list[i], expected[i] = pool.call.note(path, tostring(i)), tostring(i)
      end
      treadle.all(list):await()
      assert.same(expected, helpers.lines(path))
    end)

    it("works with several pools at once", function()
      local list = {}
      for i = 1, 5 do
        list[i] = open("tasks", { threads = 1, data = i }).call.worker()
          :and_then(function(_, _, data) return data end)
      end
      assert.same({ 1, 2, 3, 4, 5 }, treadle.all(list):await())
    end)
  end)

  describe("run", function()
    it("refuses what is no number of arguments, at the caller's line", function()
      local pool = open("tasks", { threads = 1 })
      for _, n in ipairs { -1, 1.5, 1e9, 0 / 0, math.huge } do
        assert.equal(("bad argument #2 to 'run' (field 'n': how many arguments there are expected, "
          .. "got %s)"):format(n),
          helpers.error_here(function() pool:run("count", { n = n }) end))
      end
      assert.matches("field 'n'", helpers.error_here(function() pool:run("count", { n = "1" }) end))
      local many = {}
      for i = 1, 100000 do
        many[i] = i
      end
      assert.equal("bad argument #2 to 'run' (a list of 100000: too many arguments)",
        helpers.error_here(function() pool:run("count", many) end))
      assert.equal(5000, pool:run("count", { n = 5000 }):await())
    end)

    it("of a task that is not there names the nearest, if there is one", function()
      local pool = open("tasks", { threads = 1 })
      assert.equal("bad argument #1 to 'run' (pool 'tasks' has no task 'ad', did you mean 'add'?)",
        helpers.error_here(function() pool:run("ad") end))
      helpers.module("no_tasks", "return {}")
      pool = open("no_tasks", { threads = 1 })
      assert.equal("bad argument #1 to 'run' (pool 'no_tasks' has no task 'ad', and no other)",
        helpers.error_here(function() pool:run("ad") end))
    end)

    it("takes a name and a list", function()
      local pool = open()
      assert.equal(42, pool:run("add", { 20, 22 }):await())
      assert.equal(0, pool:run("count"):await())
    end)

    it("honours n of the list", function()
      local pool = open()
      assert.equal(3, pool:run("count", { nil, nil, nil, n = 3 }):await())
      assert.equal(1, pool:run("count", { 1, 2, 3, n = 1 }):await())
    end)

    it("ships a function with its upvalues", function()
      local pool, factor = open(), 3
      assert.equal(63, pool:run(function(x) return x * factor end, { 21 }):await())
      local id = pool:run(function() return require("treadle").worker.id end):await()
      assert.equal(1, id)
    end)

    it("rejects a function that cannot be shipped", function()
      local pool, co = open(), coroutine.create(print)
      local ok, err = pool:run(function() return co end):pawait()
      assert.is_false(ok)
      assert.equal("payload", err.kind)
      assert.matches("co", err.message, 1, true)
    end)

    it("picks a worker", function()
      local pool = open("tasks", { threads = 4 })
      for round = 1, 3 do
        for i = 1, 4 do
          assert.equal(i, pool:run("id", {}, { worker = i }):await(), "round " .. round)
        end
      end
    end)

    it("checks its arguments at the caller's line", function()
      local pool = open()
      assert.matches("did you mean 'add'?",
        helpers.error_here(function() pool:run("addd") end), 1, true)
      assert.matches("bad argument #1 to 'run' (string or function expected, got nil)",
        helpers.error_here(function() pool:run() end), 1, true)
      assert.matches("bad argument #2 to 'run' (table expected, got number)",
        helpers.error_here(function() pool:run("add", 1) end), 1, true)
      assert.matches("unknown option 'timout', did you mean 'timeout'?",
        helpers.error_here(function() pool:run("add", {}, { timout = 1 }) end), 1, true)
      assert.matches("option 'worker': 1 to 1 expected, got 2",
        helpers.error_here(function() pool:run("add", {}, { worker = 2 }) end), 1, true)
      assert.matches("'timeout'",
        helpers.error_here(function() pool:run("add", {}, { timeout = "1" }) end), 1, true)
      assert.matches("'default'",
        helpers.error_here(function() pool:run("add", {}, { default = 1 }) end), 1, true)
    end)
  end)

  describe("a function of treadle's as an upvalue", function()
    it("is the worker's own, whichever it is", function() -- it was copied, or refused
      local pool, n = open(), 0
      for name in pairs(treadle_names()) do
        local fn = treadle[name]
        if type(fn) == "function" then
          assert.is_true(pool:run(function(of) return fn == require("treadle")[of] end,
            { name }):await(), name)
          n = n + 1
        end
      end
      assert.is_true(n > 40)
    end)

    it("works there", function()
      local pool = open()
      local emit, cancelled, atomics = treadle.emit, treadle.cancelled, treadle.atomics
      local buf = treadle.buffer("int32_t", 1)
      local f = pool:run(function()
        emit(cancelled())
        return atomics.add(buf, 0, 7)
      end)
      assert.is_false(f:stream()())
      assert.equal(0, f:await())
      assert.equal(7, buf:get(0))
    end)
  end)

  describe("broadcast", function()
    it("runs a function once on every worker", function()
      local pool = open("tasks", { threads = 3 })
      assert.same({ 11, 12, 13 }, pool:broadcast(function(base)
        return base + require("treadle").worker.id
      end, 10):await())
    end)

    it("rejects when one of them fails", function()
      local pool = open("tasks", { threads = 3 })
      local ok, err = pool:broadcast(function()
        if require("treadle").worker.id == 2 then
          error("not me")
        end
      end):pawait()
      assert.is_false(ok)
      assert.matches("not me", err.message, 1, true)
      assert.equal(2, err.worker)
    end)

    it("checks the name at the caller's line", function()
      local pool = open()
      assert.matches("did you mean 'add'?",
        helpers.error_here(function() pool:broadcast("adds") end), 1, true)
    end)
  end)

  describe("nested calls", function()
    it("do not deadlock with one thread and concurrency 1", function()
      assert.equal(144, open().call.fib(12):await())
    end)

    it("do not deadlock through treadle.all", function()
      assert.equal(5050, open().call.sum_all(100):await())
    end)

    it("do not deadlock when jobs wait for a call of another job", function()
      local pool, list = open(), {}
      for i = 1, 10 do
        list[i] = pool.call.memoised(8)
      end
      for _, v in ipairs(treadle.all(list):await()) do
        assert.equal(21, v)
      end
    end)

    it("work on several threads at once", function()
      local pool, list = open("tasks", { threads = 4 }), {}
      for i = 1, 8 do
        list[i] = pool.call.fib(9)
      end
      for _, v in ipairs(treadle.all(list):await()) do
        assert.equal(34, v)
      end
    end)

    it("go 300 levels deep", function()
      assert.equal(300, open().call.depth(300):await())
    end)

    it("work on a pool that the task makes", function()
      local pool = open()
      assert.equal(7, pool:run(function()
        local inner = require("treadle").pool("tasks", { threads = 2 })
        local result = inner.call.add(3, 4):await()
        inner:close()
        return result
      end):await())
    end)
  end)

  describe("of one task", function()
    it("is called like the task", function()
      local double = treadle.task { fn = function(x) return 2 * x end }:pool { threads = 1 }
      pools[1] = double
      assert.equal(42, double(21):await())
    end)

    it("keeps the task's options", function()
      local slow = treadle.task {
        fn = function() require("treadle").sleep(1000) end, timeout = 0.02, default = "late",
      }:pool { threads = 1 }
      pools[1] = slow
      assert.equal("late", slow():await())
    end)

    it("is no other pool's way", function()
      local pool = open()
      assert.matches("pool.call.NAME", helpers.error_here(function() pool(1) end), 1, true)
    end)
  end)

  describe("closed", function()
    it("rejects calls", function()
      local pool = treadle.pool("tasks", { threads = 1 })
      pool:close()
      for _, f in ipairs { pool.call.add(1, 2), pool:run("add", { 1, 2 }),
        pool:run(function() end), pool:broadcast("id") } do
        local ok, err = f:pawait()
        assert.same({ false, "closed" }, { ok, err.kind })
      end
    end)
  end)

  it("leaves no thread and no descriptor", function() done() end)
end)
