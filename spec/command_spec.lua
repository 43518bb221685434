--- The treadle command, as a shell sees it.
local helpers = require "helpers"

describe("the treadle command", function()
  teardown(helpers.clean)

  describe("runs", function()
    it("a script with its arguments", function()
      local out, err, code = helpers.child("treadle", [[
        print(select("#", ...), ...)
        print(arg[0]:match("[^/]+%.lua$") ~= nil, #arg, arg[1], arg[2], arg[3])
      ]], "one", "two words", "-e")
      assert.same({ "3\tone\ttwo words\t-e\ntrue\t3\tone\ttwo words\t-e\n", "", 0 },
        { out, err, code })
    end)

    it("a string of code, with arguments", function()
      assert.same({ "42\t7\n", "", 0 }, { helpers.shell("treadle -e 'print(42, ...)' 7") })
    end)

    it("what comes from standard input, with arguments", function()
      assert.same({ "in\ta\tb\n", "", 0 }, { helpers.shell("treadle - a b", "print('in', ...)") })
    end)

    it("a script with a first line for the shell", function()
      local path = helpers.write(helpers.new_path(".lua"), "#!/usr/bin/env treadle\nprint 'ran'\n")
      assert.same({ "ran\n", "", 0 }, { helpers.shell("treadle " .. helpers.quote(path)) })
    end)

    it("in a coroutine, with treadle there already", function()
      local out, err, code = helpers.child("treadle", [[
        print(treadle == require "treadle", treadle.is_main)
        print((select(2, coroutine.running())) ~= true and coroutine.running() ~= nil)
        local order = {}
        local other = treadle.spawn(function()
          treadle.sleep(0)
          order[#order + 1] = "other"
        end)
        treadle.sleep(0.01)
        order[#order + 1] = "main"
        print(table.concat(order, " "))
      ]])
      assert.same({ "true\ttrue\ntrue\nother main\n", "", 0 }, { out, err, code })
    end)

    it("pools whose workers have treadle there already, too", function()
      local out, err, code = helpers.child("treadle", [[
        local tasks = { f = function() return treadle.is_main, treadle.worker.id end }
        if treadle.is_main then
          local pool = treadle.pool(tasks, { threads = 1 })
          print(pool.call.f():await())
          pool:close()
        end
        return tasks
      ]])
      assert.same({ "false\t1\n", "", 0 }, { out, err, code })
    end)

    it("with standard streams closed", function()
      local _, _, code = helpers.shell([[treadle -e '
        local pool = treadle.pool("tasks", { threads = 1 })
        assert(pool.call.add(1, 2):await() == 3)
        pool.call.sleep(0.001):await()
        treadle.sleep(0.001)
        pool:close()' <&- >&- 2>&-]])
      assert.equal(0, code)
    end)

    it("without touching standard input", function()
      assert.same({ "line\n", "", 0 },
        { helpers.shell("treadle -e 'io.write(io.read(), \"\\n\")'", "line\nmore\n") })
    end)

    it("to os.exit with its code", function()
      for _, code in ipairs { 0, 7 } do
        assert.same({ "", "", code }, { helpers.child("treadle", "os.exit(" .. code .. ")") })
      end
    end)
  end)

  describe("tells", function()
    it("its versions", function()
      for _, option in ipairs { "-v", "--version" } do
        local out, err, code = helpers.shell("treadle " .. option)
        assert.matches("^treadle %d+%.%d+%.%d+ .*LuaJIT", out)
        assert.same({ "", 0 }, { err, code })
      end
    end)

    it("how it is used", function()
      for _, option in ipairs { "-h", "--help" } do
        local out, err, code = helpers.shell("treadle " .. option)
        assert.matches("usage: treadle", out, 1, true)
        assert.same({ "", 0 }, { err, code })
      end
    end)

    it("what is wrong with its arguments, and exits with 2", function()
      for _, case in ipairs {
        { "", "script" }, { "-x script.lua", "-x" }, { "--nope", "--nope" }, { "-e", "-e" } } do
        local out, err, code = helpers.shell("treadle " .. case[1])
        assert.same({ "", 2 }, { out, code })
        assert.matches(case[2], err, 1, true)
        assert.matches("usage: treadle", err, 1, true)
      end
    end)

    it("which file is missing, and exits with 1", function()
      local out, err, code = helpers.shell("treadle no/such/file.lua")
      assert.same({ "", 1 }, { out, code })
      assert.matches("no/such/file.lua", err, 1, true)
      assert.equal(1, select(2, err:gsub("\n", "")))
    end)

    it("where a syntax error is", function()
      local out, err, code = helpers.child("treadle", "local x = \n = 1")
      assert.same({ "", 1 }, { out, code })
      assert.matches("%.lua:2:", err)
      out, err, code = helpers.shell("treadle -e 'x = = 1'")
      assert.same({ "", 1 }, { out, code })
      assert.matches("command line", err, 1, true)
    end)
  end)

  it("says nothing of its own code in an uncaught error", function()
    local path = helpers.write(helpers.new_path(".lua"), "error('too bad')\n")
    local _, err, code = helpers.shell("treadle " .. helpers.quote(path))
    assert.equal(1, code)
    assert.matches("%.lua:1: in main chunk\n$", err)
    assert.is_nil(err:find("command.lua", 1, true))
    assert.is_nil(err:find("awaited", 1, true))
  end)

  describe("tells an uncaught error, with a traceback on stderr and exit code 1:", function()
    local function fails(text, ...)
      local out, err, code = helpers.child("treadle", text)
      assert.same({ "", 1 }, { out, code })
      for _, pattern in ipairs { ... } do
        assert.matches(pattern, err)
      end
      return err
    end

    it("a string", function()
      fails("local function deep() error('too bad') end\ndeep()",
        "%.lua:1: too bad", "stack traceback", "%.lua:2: in")
    end)

    it("after a wait", function()
      fails("treadle.sleep(0.001)\nerror('too bad')", "%.lua:2: too bad", "stack traceback")
    end)

    it("of a task", function()
      fails([[treadle.pool("tasks", { threads = 1 }).call.boom("too bad"):await()]],
        "too bad", "tasks%.lua:%d+: in function", "task 'boom'")
    end)

    it("of loading", function()
      fails([[treadle.pool("no_such_module")]], "no_such_module")
    end)

    it("nil, a table, a table whose __tostring raises", function()
      fails("error(nil)", "treadle: .")
      fails("error({})", "treadle: .")
      fails("error(setmetatable({}, { __tostring = function() error('inside') end }))", "inside")
    end)

    it("with a handle of luv's that was closed just before", function()
      fails("require('luv').new_timer():close()\nerror('too bad')", "%.lua:2: too bad")
    end)

    it("in one piece, like all that it complains of", function()
      local out, err, code = helpers.child("treadle", [[
        io.stderr = { write = function(_, ...) print(select("#", ...), (...)) end }
        treadle.rejected("dropped")
        collectgarbage()
        collectgarbage()
        error("too bad", 0)]])
      assert.same({ "", 1 }, { err, code })
      assert.same({
        { "1", "treadle: a rejected future was dropped unseen: dropped" },
        { "1", "treadle: too bad" },
      }, { { out:match("^(%d+)\t([^\n]*)\n") }, { out:match("\n(%d+)\t(treadle: too bad)\n") } })
    end)

    it("with calls in flight", function()
      fails([[
        local pool = treadle.pool("tasks", { threads = 2 })
        for i = 1, 100 do pool.call.sleep(1000) end
        error("too bad")
      ]], "too bad")
    end)
  end)

  describe("before it exits finishes", function()
    it("coroutines, timers and callbacks", function()
      local out, err, code = helpers.child("treadle", [[
        treadle.spawn(function()
          treadle.sleep(0.01)
          print "coroutine"
        end)
        treadle.resolved(1):and_then(function() print "callback" end)
        print "main"
      ]])
      assert.same({ "main\ncallback\ncoroutine\n", "", 0 }, { out, err, code })
    end)

    it("calls", function()
      local out, err, code = helpers.child("treadle", [[
        local pool = treadle.pool("tasks", { threads = 1 })
        pool.call.sleep(0.01):and_then(function() io.write "called back\n" end)
        pool:run(function() print "printed by a worker" end)
      ]])
      assert.same({ "", 0 }, { err, code })
      assert.matches("called back\n", out, 1, true)
      assert.matches("printed by a worker\n", out, 1, true)
    end)

    it("and does not wait for a call that was given up", function()
      for _, text in ipairs { "pool:terminate() pool:close()", "f:cancel()", "pool:close(0.01)" } do
        assert.same({ "", "", 0 }, { helpers.child("treadle", [[
          pool = treadle.pool("tasks", { threads = 1, terminate_timeout = 0.01 })
          local path = os.tmpname()
          local f = pool.call.block(path .. ".gate")
          while not io.open(path .. ".gate.entered") do end
          os.remove(path) os.remove(path .. ".gate.entered")
          ]] .. text) })
      end
    end)

    it("and does not wait for a pool that was left open", function()
      assert.same({ "", "", 0 },
        { helpers.child("treadle", 'pool = treadle.pool("tasks", { threads = 2 })') })
    end)
  end)

  it("survives Ctrl-C when its state is closed already", function()
    -- on_exit calls raise(exit code): 2 is SIGINT.
    local out, err, code = helpers.child("treadle", [[
      local ffi = require "ffi"
      ffi.cdef "int raise(int); int on_exit(void (*)(int, void *), void *);"
      ffi.C.on_exit(ffi.cast("void (*)(int, void *)", ffi.C.raise), nil)
      os.exit(2, true)
    ]])
    assert.same({ "", "", 2 }, { out, err, code })
  end)

  describe("ends at Ctrl-C with exit code 130", function()
    --- Seconds from the signal to the end; generous against a second as promised.
    local AT_MOST = 5

    local BUSY = [[
      local pool = treadle.pool("tasks", { threads = 2 })
      keep = { pool }
      for i = 1, 2 do
        pool:run(function() local n = 0 while true do n = n + 1 end end)
      end
    ]]
    -- #computing: it calls nothing, so that a tool that delivers signals at calls delivers none.
    local SCRIPTS = {
      ["while it sleeps"] = "READY() treadle.sleep(1000)",
      ["while it awaits"] = "READY() treadle.future():await()",
      ["while a main loop sleeps in coroutines"] =
        "READY() for i = 1, 10 do treadle.spawn(treadle.sleep, 1000) end",
      ["while it computes #computing"] = "jit.off() READY() while true do end",
      ["while it computes in a compiled loop #computing"] =
        "local n = 0 READY() while true do n = n + 1 end",
      ["while it computes in pcall #computing"] =
        "READY() while true do pcall(function() for i = 1, 1e6 do end end) end",
      ["while it waits for a task that sleeps"] =
        'local pool = treadle.pool("tasks", { threads = 1 }) READY() pool.call.sleep(1000):await()',
      ["while it sleeps and its workers compute"] = BUSY .. "READY() treadle.sleep(1000)",
      ["while it and its workers compute #computing"] = BUSY .. "READY() while true do end",
      ["while it waits for a process that sleeps"] = [[
        local pool = treadle.pool("tasks", { threads = 1, runtime = "process" })
        READY()
        pool.call.sleep(1000):await()
      ]],
      ["while it closes a pool that computes"] = BUSY .. "READY() keep[1]:close()",
      ["while it waits in luv"] = [[
        local uv = require "luv"
        local t = uv.new_timer()
        t:start(1000000, 0, function() end)
        READY()
      ]],
    }
    for name, text in pairs(SCRIPTS) do
      it(name, function()
        local ready = helpers.new_path()
        local script = helpers.write(helpers.new_path(".lua"), ([[
          local function READY() local f = io.open(%q, "w") f:write("x") f:close() end
        ]]):format(ready) .. text)
        -- A shell without job control ignores SIGINT for what it starts in the background: env
        -- gives the default back.
        local out, err, code = helpers.shell(([[
          env --default-signal=INT treadle %s &
          pid=$!
          while [ ! -s %s ]; do sleep 0.01; done
          sleep 0.05 # to be well inside; it must end from anywhere
          start=$(date +%%s%%N)
          kill -INT $pid
          wait $pid
          code=$?
          echo $(( ($(date +%%s%%N) - start) / 1000000 ))
          exit $code
        ]]):format(helpers.quote(script), helpers.quote(ready)))
        assert.equal(130, code)
        assert.is_true(tonumber(out) < AT_MOST * 1000, out)
        if not name:find "#computing" then -- it is interrupted, not cut off
          assert.equal("treadle: interrupted\n", err)
        end
      end)
    end

    it("after the callback of luv's in which it arrives", function()
      local out, err, code = helpers.child("treadle", [[
        local ffi, uv = require "ffi", require "luv"
        ffi.cdef "int raise(int);"
        local t = uv.new_timer()
        t:start(1, 0, function()
          io.write "called"
          ffi.C.raise(2)
          io.write " to its end"
        end)
      ]])
      assert.same({ "called to its end", "treadle: interrupted\n", 130 }, { out, err, code })
    end)
  end)

  describe("bench", function()
    it("prints what each kind of call takes", function()
      local out, err, code = helpers.shell("treadle bench --seconds 0.1 --threads 1")
      assert.same({ "", 0 }, { err, code })
      local rows = 0
      for line in out:gmatch "[^\n]+" do
        rows = rows + 1
        if line:find "^map of " then
          assert.matches("^map of [%d.e+]+ %S+ of work, 1 worker +[%d.]+ times as fast$", line)
        else
          assert.matches("^[%w ,]+  +[%d.e+]+ %S*s$", line)
        end
      end
      assert.equal(7, rows)
    end)

    it("refuses what it does not know", function()
      for arguments, message in pairs {
        ["--secnds 1"] = "unknown option '--secnds', did you mean '--seconds'?",
        ["--seconds"] = "option --seconds needs a number above 0",
        ["--seconds 0"] = "option --seconds needs a number above 0",
        ["--threads 1.5"] = "option --threads needs a whole number",
      } do
        local out, err, code = helpers.shell("treadle bench " .. arguments)
        assert.same({ "", 2 }, { out, code })
        assert.equal("treadle bench: " .. message, err:match "^[^\n]+")
      end
    end)
  end)
end)
