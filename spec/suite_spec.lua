--- `treadle test`, beside busted alone.
local helpers = require "helpers"

local BUSTED = "luajit $(command -v busted) --ignore-lua"

--- A folder with these files in it: path -> text.
local function folder_of(files)
  local folder = helpers.new_path(".suite")
  for path, text in pairs(files) do
    local parent = (folder .. "/" .. path):match("^(.*)/")
    assert(os.execute("mkdir -p " .. helpers.quote(parent)) == 0)
    helpers.write(folder .. "/" .. path, text)
  end
  return folder
end

local function run_in(folder, command)
  return helpers.shell(("cd %s\n%s"):format(helpers.quote(folder), command))
end

local function treadle_in(folder, arguments)
  return run_in(folder, "treadle test " .. (arguments or ""))
end

-- --- what must not be the same -------------------------------------------------------------------

--- An XML tag with its attributes in order: busted writes them as a table has them.
local function sort_attributes(text)
  return (text:gsub("<(%w+) ([^<>]-)(/?)>", function(name, attributes, stop)
    local list = {}
    for attribute in attributes:gmatch("%w+='[^']*'") do
      list[#list + 1] = attribute
    end
    table.sort(list)
    return ("<%s %s%s>"):format(name, table.concat(list, " "), stop)
  end))
end

--- Without times, and addresses of tables.
local function timeless(text)
  text = text:gsub("%f[%d]%d+%.%d+ ms", "T ms")
  text = text:gsub("%f[%d]%d+%.%d+([%s\027%[m%d]* %a+)\n", "T%1\n")
  text = text:gsub("table: 0x%x+", "TABLE"):gsub("time='[^']*'", "time=''")
  return sort_attributes(text:gsub("timestamp='[^']*'", "timestamp=''"))
end

--- What busted and treadle say of a suite.
local function both(folder, arguments)
  local results = {}
  for i, command in ipairs { BUSTED, "treadle test" } do
    local out, err, code = run_in(folder, command .. " " .. arguments)
    results[i] = { out = timeless(out), err = err, code = code }
  end
  return results[1], results[2]
end

--- Two texts from where they differ on: the ends of long ones are no help.
local function lines_that_differ(a, b)
  local at, next_line = 1, 1
  while next_line do
    local stop = a:find("\n", at, true)
    next_line = stop and a:sub(1, stop) == b:sub(1, stop) and stop + 1
    at = next_line or at
  end
  return a:sub(at, at + 400), b:sub(at, at + 400)
end

--- ... which is the same; returns it.
local function same(folder, arguments)
  local expected, result = both(folder, arguments)
  assert.same(lines_that_differ(expected.out, result.out))
  assert.same({ expected.err, expected.code }, { result.err, result.code })
  return result
end

-- --- suites --------------------------------------------------------------------------------------

local MIXED = {
  ["spec/a_pass_spec.lua"] = [[
    describe("passing", function()
      it("one", function() assert.is_true(true) end)
      describe("nested", function()
        before_each(function() io.write("before\n") end)
        it("two", function() print("printed") io.stderr:write("to stderr\n") end)
        it("three #slow", function() end)
      end)
    end)]],
  ["spec/b_fail_spec.lua"] = [[
    describe("failing", function()
      it("fails", function() assert.same({ a = { 1 } }, { a = { 2 } }) end)
      it("raises", function() local t = nil; t.x = 1 end)
      it("raises a table", function() error({ 1, 2 }) end)
      it("has a message", function() assert.equal(1, 2, "numbers differ") end)
      pending("later")
      it("is pending inside", function() pending("not yet") end)
      it("finally", function() finally(function() error("in finally") end) end)
    end)]],
  ["spec/c_setup_spec.lua"] = [[
    describe("setup raises", function()
      setup(function() error("no setup") end)
      it("never runs", function() end)
    end)
    describe("teardown raises", function()
      teardown(function() error("no teardown") end)
      it("runs", function() end)
    end)
    describe("before_each raises", function()
      before_each(function() error("no before") end)
      it("never runs either", function() end)
    end)
    describe("after_each raises", function()
      after_each(function() error("no after") end)
      it("runs too", function() end)
    end)
    describe("raises itself", function() error("in describe") end)]],
  ["spec/d_insulate_spec.lua"] = [[
    insulate("a", function()
      _G.leak = 1
      it("sees", function() assert.equal(1, _G.leak) end)
    end)
    insulate("b", function() it("does not", function() assert.is_nil(_G.leak) end) end)
    expose("c", function() _G.shown = 2 end)
    describe("d", function() it("sees it", function() assert.equal(2, _G.shown) end) end)
    strict = 5
    it("at file level", function() assert.equal(5, strict) end)]],
  ["spec/e_empty_spec.lua"] = "return 1",
  ["spec/f_raise_spec.lua"] = "error('at file level')",
  ["spec/deep/g_spec.lua"] = "it('is deep', function() end)",
  ["spec/no_test.lua"] = "error('is no spec')",
}

local function with(files, more)
  local all = {}
  for path, text in pairs(files) do all[path] = text end
  for path, text in pairs(more) do all[path] = text end
  return all
end

--- A file with a test before and one after the one that is to show something.
local function around(code)
  return ([[
    describe("group", function()
      it("before", function() end)
      it("the one", function() %s end)
      it("after", function() end)
    end)]]):format(code)
end

--- An output handler that tells every event with the names that it comes with.
local OWN_HANDLER = [[
  return function(options)
    local busted = require "busted"
    local handler = require "busted.outputHandlers.base"()
    for _, channel in ipairs {
      { "suite", "start" }, { "suite", "end" }, { "file", "start" }, { "file", "end" },
      { "describe", "start" }, { "describe", "end" }, { "test", "start" }, { "test", "end" },
      { "error" }, { "failure" }, { "exit" } } do
      busted.subscribe(channel, function(element, parent, status)
        io.write(table.concat(channel, " "), ": ", element and handler.getFullName(element) or "",
          " in ", parent and type(parent) == "table" and parent.descriptor or "-", " ",
          tostring(status), options.arguments[1] or "", "\n")
        return nil, true
      end)
    end
    return handler
  end]]

-- -------------------------------------------------------------------------------------------------

describe("treadle test", function()
  teardown(helpers.clean)

  describe("tells the same as busted alone", function()
    local mixed, broken

    setup(function()
      mixed = folder_of(with(MIXED, { ["own.lua"] = OWN_HANDLER }))
      broken = folder_of(with(MIXED, { ["spec/a_syntax_spec.lua"] = "local x = = 1" }))
    end)

    for _, handler in ipairs {
      "utfTerminal", "plainTerminal", "TAP", "gtest", "junit", "own.lua" } do
      it("with the output handler " .. handler, function()
        for _, more in ipairs { "", " -v", " --suppress-pending", " --defer-print" } do
          local result = same(mixed, "-o " .. handler .. more)
          assert.equal(1, result.code)
          assert.is_true(#result.out > 400)
        end
      end)
    end

    it("with the output handler json, as far as that gets", function()
      local folder = folder_of({
        ["spec/a_spec.lua"] = MIXED["spec/a_pass_spec.lua"],
        ["spec/b_spec.lua"] = "it('fails', function() assert.equal(1, 2) end)\n"
          .. "it('raises', function() error({ 'x' }) end)",
      })
      local json = require "dkjson"
      local function read(text)
        local t = json.decode(text:match("\n({.*})\n$"))
        local function strip(value)
          for k, v in pairs(value) do
            if tostring(k):match("tick$") or tostring(k):match("time$") or k == "duration" then
              value[k] = nil
            elseif type(v) == "table" then
              strip(v)
            end
          end
        end
        strip(t)
        return t
      end
      local expected, result = both(folder, "-o json")
      local values = read(result.out)
      assert.same(read(expected.out), values)
      assert.same({ 3, 1, 1 }, { #values.successes, #values.failures, #values.errors })
    end)

    it("of a file that does not compile", function()
      local result = same(broken, "-o plainTerminal")
      assert.matches("unexpected symbol", result.out, 1, true)
    end)

    for _, options in ipairs {
      "--shuffle --seed 5 -o gtest", "--sort -o gtest", "--list", "--tags slow",
      "--exclude-tags slow", "--filter three", "--filter-out one", "--no-keep-going",
      "--repeat 3", "--no-auto-insulate", "--lazy", "--no-recursive", "-C spec .",
      "-p test", "spec/d_insulate_spec.lua spec/a_pass_spec.lua spec/a_pass_spec.lua",
      "-o utfTerminal -Xoutput --color", "-o own.lua -Xoutput word", "--lang de",
      "--exclude-pattern fail", "-e 'x = 1'", "-o gtest --lpath=./lib/?.lua" } do
      it("with " .. options, function()
        same(mixed, options)
      end)
    end

    for _, options in ipairs {
      "--version", "--nope", "no/such/folder", "-p nothing", "-o nosuch", "--helper nosuch",
      "--helper spec/f_raise_spec.lua", "--coverage", "-t a --exclude-tags a", "-f nosuch",
      "--repeat x", "-C nosuch", "-r nosuch" } do
      it("of wrong arguments and what ends at once: " .. options, function()
        same(mixed, options)
      end)
    end

    it("of .busted: what to run, with which helper, a task of a name", function()
      local folder = folder_of(with(MIXED, {
        [".busted"] = [[return {
          _all = { helper = "helper.lua", lpath = "./lib/?.lua" },
          default = { ROOT = { "good" }, jobs = 1 },
          special = { ROOT = { "spec" }, pattern = "_check", verbose = true },
        }]],
        ["helper.lua"] = "_G.helped = require('lib').value",
        ["lib/lib.lua"] = "return { value = 'yes' }",
        ["good/x_spec.lua"] = "it('is helped', function() assert.equal('yes', helped) end)",
        ["spec/y_check.lua"] = "it('is special', function() assert.equal('no', helped) end)",
      }))
      assert.equal(0, same(folder, "-o TAP").code)
      assert.matches("is special", same(folder, "-o TAP --run=special").out, 1, true)
      same(folder, "-o TAP --run special good/x_spec.lua")
    end)

    it("of 200 files", function()
      local files = {}
      for i = 1, 200 do
        files[("spec/file%03d_spec.lua"):format(i)] = ([[
          describe("file %d", function()
            for i = 1, 3 do it("test " .. i, function() io.write(i, ";") end) end
            it("fails if it is a tenth", function() assert.is_true(%d %% 10 ~= 0) end)
          end)]]):format(i, i)
      end
      local result = same(folder_of(files), "-o plainTerminal")
      assert.matches("780 successes / 20 failures", result.out, 1, true)
    end)
  end)

  it("exits with 0 if all is well", function()
    local folder = folder_of { ["spec/a_spec.lua"] = "it('is', function() end)" }
    assert.equal(0, same(folder, "").code)
  end)

  it("runs files at the same time, each in a state and a process of its own", function()
    local function meets(own, other)
      return ([[
        local helpers = require "helpers"
        local folder = os.getenv "PWD"
        helpers.write(folder .. "/" .. %q .. ".here", "1")
        it("meets another", function()
          helpers.eventually(function() return helpers.read(folder .. "/%s.here") ~= "" end)
          assert.is_nil(_G.met)
          _G.met = true
        end)]]):format(own, other)
    end
    local folder = folder_of {
      ["spec/a_spec.lua"] = meets("a", "b"), ["spec/b_spec.lua"] = meets("b", "a"),
    }
    local out, err, code = treadle_in(folder, "--jobs 2 --no-auto-insulate -o TAP")
    assert.same({ "ok 1 - meets another\nok 2 - meets another\n1..2\n", "", 0 },
      { out, err, code })
  end)

  it("runs so many at once as --jobs says", function()
    local file = [[it("is alone", function()
      assert(os.execute("mkdir busy") == 0)
      assert(os.execute("rmdir busy") == 0)
    end)]]
    local files = {}
    for i = 1, 8 do files[("spec/f%d_spec.lua"):format(i)] = file end
    local out, _, code = treadle_in(folder_of(files), "--jobs=1 -o plainTerminal")
    assert.matches("8 successes", out, 1, true)
    assert.equal(0, code)
  end)

  describe("makes a failure of its own out of a file", function()
    local function fails_with(code, reason)
      local folder = folder_of {
        ["spec/a_spec.lua"] = around "", ["spec/b_spec.lua"] = around(code),
        ["spec/c_spec.lua"] = around "",
      }
      for _, handler in ipairs { "TAP", "gtest", "junit", "plainTerminal" } do
        local out, _, exit = treadle_in(folder, "-o " .. handler)
        assert.matches("spec/b_spec%.lua: " .. reason, out)
        assert.matches("group the one", out, 1, true)
        assert.equal(1, exit)
        if handler == "TAP" then
          assert.matches("not ok 5 - group the one", out, 1, true)
          assert.matches("ok 8 - group after\n1..8\n", out, 1, true)
        end
      end
    end

    it("that writes where nothing is", function()
      -- Sanitizers make an exit of it.
      local out = helpers.shell "luajit -e \"require('ffi').cast('int *', 0)[0] = 1\"; echo $?"
      local code = tonumber(out:match("(%d+)\n$"))
      fails_with("require('ffi').cast('int *', 0)[0] = 1", code < 128
        and ("ended with exit code %d before its last test"):format(code) or "died of SIGSEGV")
    end)

    it("that aborts", function()
      fails_with("local ffi = require 'ffi' ffi.cdef 'void abort(void);' ffi.C.abort()",
        "died of SIGABRT")
    end)

    it("that kills itself", function()
      fails_with("os.execute('kill -9 $PPID')", "died of SIGKILL")
    end)

    it("that exits", function()
      fails_with("os.exit(0)", "ended with exit code 0 before its last test was done")
      fails_with("os.exit(3)", "ended with exit code 3 before its last test was done")
    end)

    it("that hangs", function()
      local folder = folder_of {
        ["spec/a_spec.lua"] = around "while true do end", ["spec/b_spec.lua"] = around "",
      }
      local out, _, code = treadle_in(folder, "-o TAP --timeout 5")
      assert.matches("spec/a_spec.lua: hangs: nothing has happened for 5 s", out, 1, true)
      assert.matches("not ok 2 - group the one\n", out, 1, true)
      assert.matches("\nok 5 - group after\n1..5\n", out, 1, true)
      assert.equal(1, code)
    end)

    it("that prints without end", function()
      local folder = folder_of { ["spec/a_spec.lua"] = around [[
        local s = ("x"):rep(65536)
        while true do io.write(s) end]], ["spec/b_spec.lua"] = around "" }
      local out = treadle_in(folder, "-o TAP | tr -d x")
      assert.matches("spec/a_spec.lua: printed more than 256 MiB", out, 1, true)
      assert.matches("1..5", out, 1, true)
    end)

    it("that needs more memory than there is", function()
      local folder = folder_of { ["spec/a_spec.lua"] = around [[
        local ffi = require "ffi"
        ffi.cdef "int setrlimit(int, const unsigned long *);"
        assert(ffi.C.setrlimit(9, ffi.new("unsigned long[2]", 1, 1)) == 0)
        local all = {}
        for i = 1, 1e9 do all[i] = ("x"):rep(1000) .. i end]], ["spec/b_spec.lua"] = around "" }
      local out, _, code = treadle_in(folder, "-o TAP")
      assert.matches("\nnot ok 2 - group the one\n", out, 1, true)
      assert.matches("spec/a_spec.lua", out, 1, true)
      assert.matches("ok %d %- group after\n1%.%.%d\n$", out)
      assert.equal(1, code)
    end)

    it("that dies when its tests are done", function()
      local folder = folder_of { ["spec/a_spec.lua"] = [[
        local ffi = require "ffi"
        ffi.cdef "int getpid(void); int kill(int, int);"
        package.keep = ffi.gc(ffi.new "int[1]", function() ffi.C.kill(ffi.C.getpid(), 9) end)
        it("passes", function() end)]] }
      local out, _, code = treadle_in(folder, "-o TAP")
      assert.matches("ok 1 - passes\nnot ok 2", out, 1, true)
      assert.matches("died of SIGKILL after its last test", out, 1, true)
      assert.equal(1, code)
    end)
  end)

  describe("prints what a file prints, in its place:", function()
    it("100 MB", function()
      local folder = folder_of { ["spec/a_spec.lua"] = around [[
        local line = ("x"):rep(99) .. "\n"
        for i = 1, 1e6 do io.write(line) end]] }
      local function digest(command)
        return (run_in(folder, command .. " -o TAP | md5sum"))
      end
      assert.equal(digest(BUSTED), digest "treadle test")
    end)

    it("bytes of all kinds, and of its processes", function()
      same(folder_of { ["spec/a_spec.lua"] = around [[
        for i = 0, 255 do io.write(string.char(i)) end
        io.flush()
        os.execute("printf 'out\\n'; printf 'err\\n' >&2")]] }, "-o TAP 2>&1")
    end)

    it("also when it has closed its streams", function()
      local out, _, code = treadle_in(folder_of { ["spec/a_spec.lua"] = around [[
        print "printed"
        io.stdout:close()
        io.stderr:close()]] }, "-o TAP")
      assert.same({ [[
ok 1 - group before
printed
ok 2 - group the one
ok 3 - group after
1..3
]], 0 }, { out, code })
    end)

    it("without waiting for what it has left behind", function()
      local folder = folder_of { ["spec/a_spec.lua"] = around
        "os.execute('sleep 1000 & echo $! >sleeper')" }
      local _, _, code = treadle_in(folder)
      local stopped = os.execute("kill " .. helpers.lines(folder .. "/sleeper")[1])
      assert.same({ 0, 0 }, { code, stopped })
    end)
  end)

  describe("is ended", function()
    --- Whether a process runs; one that nobody has waited for does not.
    local function is_alive(pid)
      local state = helpers.read(("/proc/%s/stat"):format(pid)):match("^.*%) (%a)")
      return state ~= nil and state ~= "Z"
    end

    --- Start it, send it a signal when its second test runs: output, exit code and that test's
    -- process.
    local function stop_with(signal)
      local folder = folder_of { ["spec/a_spec.lua"] = [[
        it("passes", function() end)
        it("waits", function() os.execute("echo $PPID $$ >here; exec sleep 1000") end)]] }
      local out, _, code = run_in(folder, ([[
        treadle test -o TAP >out 2>&1 &
        until [ -s here ]; do sleep 0.01; done
        kill -%s $!
        wait $!
        echo $?]]):format(signal))
      assert.equal(0, code)
      local pids = {}
      for pid in helpers.read(folder .. "/here"):gmatch("%d+") do pids[#pids + 1] = pid end
      assert.equal(2, #pids)
      return helpers.read(folder .. "/out"), tonumber(out:match("(%d+)\n$")), pids
    end

    it("by Ctrl-C, tells what is known, and leaves nothing behind", function()
      for signal, expected in pairs { INT = 130, TERM = 143 } do
        local out, code, pids = stop_with(signal)
        assert.equal(expected, code)
        assert.matches("ok 1 - passes\nnot ok 2 - waits\n", out, 1, true)
        assert.matches("interrupted", out, 1, true)
        for _, pid in ipairs(pids) do
          helpers.eventually(function() return not is_alive(pid) end, "the process is gone")
        end
      end
    end)

    it("by SIGKILL, and its files' processes with it", function()
      local _, code, pids = stop_with "KILL"
      assert.equal(137, code)
      helpers.eventually(function() return not is_alive(pids[1]) end, "the process is gone")
      os.execute("kill " .. pids[2])
    end)
  end)

  it("says which folder has no room for temporary files", function()
    local folder = folder_of { ["spec/a_spec.lua"] = "it('is not run', function() end)" }
    local out, err, code = run_in(folder, "TMPDIR=./missing treadle test")
    assert.same({ "", 1 }, { out, code })
    assert.equal("treadle test: no temporary file in ./missing: No such file or directory\n", err)
  end)

  it("collects the figures of luacov from all files, whole, and reports once", function()
    -- A luacov that counts how often files ran, and adds to its file as the real one does.
    local folder = folder_of {
      ["luacov/runner.lua"] = [[
        local runner = { configuration = { exclude = {}, runreport = true, statsfile = "figures" } }
        function runner.load_config() return runner.configuration end
        function runner.save_stats()
          local file, count = io.open(runner.configuration.statsfile), 0
          if file then
            count = assert(tonumber(file:read "*a"))
            file:close()
          end
          os.execute "sleep 0.02" -- others may come here meanwhile
          file = assert(io.open(runner.configuration.statsfile, "w"))
          file:write(count + 1)
          file:close()
        end
        function runner.run_report()
          local file = assert(io.open("report", "a"))
          file:write(io.open("figures"):read "*a", "\n")
          file:close()
        end
        local function finish()
          runner.save_stats()
          if runner.configuration.runreport then runner.run_report() end
        end
        return setmetatable(runner, { __call = function()
          runner.anchor = newproxy(true)
          getmetatable(runner.anchor).__gc = finish
          _G.covered = true
        end })]],
    }
    for i = 1, 8 do
      os.execute("mkdir -p " .. folder .. "/spec")
      helpers.write(("%s/spec/f%d_spec.lua"):format(folder, i),
        "it('is covered', function() assert.is_true(covered) end)")
    end
    local out, err, code = run_in(folder, "LUA_PATH=\"./?.lua;$LUA_PATH\" treadle test --coverage"
      .. " --jobs 4 -o plainTerminal")
    assert.matches("8 successes / 0 failures / 0 errors", out, 1, true)
    assert.same({ "", 0, "8\n" }, { err, code, helpers.read(folder .. "/report") })
  end)

  describe("has options of its own:", function()
    it("--print failed shows what the files with failures print", function()
      local folder = folder_of {
        ["spec/a_spec.lua"] = "it('passes', function() print 'not shown' end)",
        ["spec/b_spec.lua"] = "it('fails', function() print 'shown' error 'so' end)",
      }
      local out = treadle_in(folder, "-o TAP --print failed")
      assert.is_nil(out:find("not shown", 1, true))
      assert.matches("\nshown\n", out, 1, true)
    end)

    it("help tells them", function()
      local _, err, code = helpers.shell "treadle test --help"
      for _, word in ipairs {
        "--jobs=N", "--timeout=SECONDS", "--print=WHOSE", "progress", "--filter=PATTERN" } do
        assert.matches(word, err, 1, true)
      end
      assert.equal(1, code) -- as busted's
    end)

    it("wrong numbers are refused by name", function()
      for _, option in ipairs {
        "--jobs 0", "--jobs 1.5", "--jobs many", "--timeout=-1", "--timeout x",
        "--print some" } do
        local out, err, code = helpers.shell("treadle test " .. option)
        assert.same({ "", 1 }, { out, code })
        assert.matches("argument to " .. option:match("^%-%-%a+"), err, 1, true)
      end
    end)

    it("wrong ones in .busted are, too", function()
      for _, field in ipairs { "jobs = 'many'", "timeout = -1", "print = 3" } do
        local out, err, code = treadle_in(folder_of {
          [".busted"] = "return { default = { " .. field .. " } }",
          ["spec/a_spec.lua"] = "it('is not run', function() end)",
        })
        assert.same({ "", 1 }, { out, code })
        assert.matches(("^busted: error: argument to %%-%%-%s must be [^\n]+\n$"):format(
          field:match "^%a+"), err)
      end
    end)

    it("--lua runs the files by another LuaJIT, as busted's does", function()
      local folder = folder_of { ["spec/a_spec.lua"] = [[it("tells", function()
        io.write(io.popen("readlink /proc/$PPID/exe"):read "*a")
      end)]] }
      assert.matches("/treadle\n", treadle_in(folder, "-o TAP"), 1, true)
      assert.matches("/luajit[^\n]*\n", treadle_in(folder, "-o TAP --lua luajit"))
    end)

    it("a LuaJIT that is not there is told, once", function()
      local _, err, code = treadle_in(folder_of(MIXED), "--lua no-such-lua")
      assert.matches("cannot run no-such-lua", err, 1, true)
      assert.equal(1, code)
    end)

    it("a line on a terminal tells how far it is; --no-progress does without", function()
      local folder = folder_of { ["spec/a_spec.lua"] = [[it("waits", function()
        os.execute("sleep 0.3")
      end)]] }
      local function on_terminal(options)
        return (run_in(folder, ("TERM=xterm SHELL=/bin/sh script -qc 'treadle test%s' /dev/null")
          :format(options)))
      end
      assert.matches("0 of 1 files done, 0 failures, longest: spec/a_spec.lua", on_terminal "", 1,
        true)
      assert.is_nil(on_terminal(" --no-progress"):find "files done")
    end)
  end)

  it("lets specs use treadle, in the process that runs them", function()
    local out, _, code = treadle_in(folder_of { ["spec/a_spec.lua"] = [[
      local treadle = require "treadle"
      it("calls", function()
        local pool = treadle.pool({ add = function(a, b) return a + b end }, { threads = 2 })
        assert.equal(3, pool.call.add(1, 2):await())
        pool:close()
      end)]] }, "-o TAP")
    assert.same({ "ok 1 - calls\n1..1\n", 0 }, { out, code })
  end)
end)
