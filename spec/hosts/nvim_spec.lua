--- treadle in Neovim: real editors without a window, each with a script of its own.
local helpers = require "helpers"

local EXAMPLE = helpers.folder .. "/../../examples/nvim"

-- What every script begins with. `say` writes a line that the spec gets back.
local HEAD = [[
local out = assert(io.open(%q, "wb"))
local function say(...)
  local words = {}
  for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
  out:write(table.concat(words, " "), "\n")
  out:flush()
end
local uv = vim.uv or vim.loop
local function after(ms, fn)
  local timer = uv.new_timer()
  timer:start(ms, 0, function() timer:close() fn() end)
end
]]

describe("Neovim", function()
  local home

  setup(function()
    assert(select(3, helpers.shell "command -v nvim") == 0,
      "no Neovim here: make setup-check installs it")
    home = helpers.new_path ".home"
    os.execute("mkdir -p " .. helpers.quote(home))
    helpers.write(helpers.scratch() .. "/nvim_tasks.lua", [[
      local tasks = {}
      function tasks.add(a, b) return a + b end
      function tasks.endless() while true do end end
      function tasks.write(path, text)
        local file = assert(io.open(path, "wb"))
        file:write(text)
        file:close()
      end
      function tasks.leave()
        tasks.write(require("treadle").worker.data, "left")
      end
      return tasks
    ]])
  end)

  teardown(helpers.clean)

  --- Run a script in an editor, then `:qa!`, or another command.
  -- @return the lines it has said, what the editor wrote, its exit code
  local function edit(text, command)
    local path = helpers.new_path ".lua"
    local said = path .. ".said"
    helpers.write(path, HEAD:format(said) .. text)
    local out, err, code = helpers.shell(("exec env HOME=%s XDG_CONFIG_HOME=%s XDG_DATA_HOME=%s "
      .. "XDG_STATE_HOME=%s nvim --headless -u NONE -i NONE -n -c 'luafile %s' %s"):format(home,
      home, home, home, path, command or "-c qa!"))
    return helpers.lines(said), out .. err, code
  end

  local function says(wanted, text, command)
    local lines, written, code = edit(text, command)
    assert.same(wanted, lines, written)
    assert.equal(0, code, written)
    return written
  end

  it("is attached to by itself, and goes on while main code waits", function()
    says({ "3", "n true", "finished" }, [[
      local treadle = require "treadle"
      local pool = treadle.pool("nvim_tasks")
      say(pool.call.add(1, 2):await())
      -- settled by an event of the editor's, with its API
      local f, resolve = treadle.future()
      vim.schedule(function() resolve(vim.api.nvim_get_mode().mode) end)
      local ticked = false
      after(1, function() ticked = true end)
      local mode = f:await()
      treadle.sleep(0.01)
      say(mode, ticked)
      pool:close()
      say "finished"
    ]])
  end)

  it("runs what has waited where vim.api may be called", function()
    says({ "fast true", "then false 7", "line hello", "plain 9" }, [[
      local treadle = require "treadle"
      local pool = treadle.pool("nvim_tasks")
      local done = false
      after(0, function()
        say("fast", vim.in_fast_event())
        treadle.spawn(function()
          local sum = pool.call.add(3, 4):await()
          say("then", vim.in_fast_event(), sum)
          vim.api.nvim_buf_set_lines(0, 0, -1, false, { "hello" })
          say("line", vim.fn.getline(1))
          done = true
        end)
      end)
      vim.wait(20000, function() return done end)
      -- a coroutine that is nobody's
      local co = coroutine.wrap(function() say("plain", pool.call.add(4, 5):await()) done = 2 end)
      co()
      vim.wait(20000, function() return done == 2 end)
    ]])
  end)

  it("refuses a wait in a callback of the loop, and says where to wait", function()
    says({ "false true true" }, [[
      local treadle = require "treadle"
      local pool = treadle.pool("nvim_tasks", { threads = 1 })
      local done = false
      after(0, function()
        local f = pool.call.add(1, 1)
        local ok, err = pcall(f.await, f)
        say(ok, tostring(err):find("vim.in_fast_event", 1, true) ~= nil,
          tostring(err):find("treadle.spawn", 1, true) ~= nil)
        done = true
      end)
      vim.wait(20000, function() return done end)
    ]])
  end)

  it("gives time limits and cancellations to what waits", function()
    says({ "false", "false timeout", "false cancelled no more" }, [[
      local treadle = require "treadle"
      local pool = treadle.pool("nvim_tasks", { threads = 1 })
      local f = pool.call.endless()
      say(f:wait(0.01))
      local ok, err = pool:run(function() end, {}, { timeout = 0.01 }):pawait()
      say(ok, err.kind)
      local waits = treadle.spawn(function() f:await() end)
      vim.schedule(function() waits:cancel "no more" end)
      ok, err = waits:pawait()
      say(ok, err.kind, err.message)
    ]])
  end)

  it("lets code that a turn runs wait in its place, while others go on", function()
    says({ "other", "nested 3 0", "after" }, [[
      local treadle = require "treadle"
      local pool = treadle.pool("nvim_tasks")
      local done = false
      treadle.spawn(function() treadle.sleep(0.001) say "other" done = true end)
      require("treadle.loop").defer(function()
        while not done do treadle.sleep(0.001) end
        say("nested", pool.call.add(1, 2):await(), pool.call.add(0, 0):await())
      end)
      treadle.sleep(0.002)
      say "after"
    ]])
  end)

  it("tells of errors by vim.notify", function()
    local written = says({ "true 4", "true 4" }, [[
      local treadle = require "treadle"
      local pool = treadle.pool("nvim_tasks", { threads = 1 })
      local told, level
      vim.notify = function(text, how) told, level = text, how end
      require("treadle.loop").defer(function() error "nobody catches this" end)
      vim.wait(20000, function() return told ~= nil end)
      say(told:find("nobody catches this", 1, true) ~= nil, level)
      told = nil
      treadle.spawn(function() pool.call.add(1, 2):await() error "nor this" end)
      vim.wait(20000, function() collectgarbage() return told ~= nil end, 1)
      say(told:find("nor this", 1, true) ~= nil, level)
    ]])
    assert.equal("", written)
  end)

  it("ends a wait of main code by Ctrl-C", function()
    says({ "false Keyboard interrupt", "3" }, [[
      local treadle = require "treadle"
      local pool = treadle.pool("nvim_tasks", { threads = 2 })
      local f = pool.call.endless()
      after(1, function() vim.api.nvim_input "<C-c>" end)
      say(pcall(f.await, f))
      say(pool.call.add(1, 2):await())
    ]])
  end)

  it("ends by a signal while main code waits for a task that does not end", function()
    local lines, written, code = edit([[
      local treadle = require "treadle"
      local pool = treadle.pool("nvim_tasks", { threads = 1 })
      local f = pool.call.endless()
      after(1, function() say "killed" uv.kill(uv.os_getpid(), "sigterm") end)
      f:await()
      say "never"
    ]])
    assert.same({ "killed" }, lines, written)
    assert.equal(1, code)
  end)

  it("leaves with pools that are open: what was accepted is done, states end", function()
    local result, left = helpers.new_path(), helpers.new_path()
    says({ "leaving" }, ([[
      local treadle = require "treadle"
      local pool = treadle.pool("nvim_tasks", { threads = 1, teardown = "leave", data = %q })
      pool.call.write(%q, "written")
      say "leaving"
    ]]):format(left, result))
    assert.equal("written", helpers.read(result))
    assert.equal("left", helpers.read(left))
  end)

  it("leaves with tasks that do not end, by each command", function()
    for command, wanted in pairs { ["-c q"] = 0, ["-c qa!"] = 0, ["-c cq"] = 1 } do
      local lines, written, code = edit([[
        local treadle = require "treadle"
        local pool = treadle.pool("nvim_tasks", { threads = 2 })
        local other = treadle.pool("nvim_tasks", { threads = 2 })
        for _ = 1, 4 do pool.call.endless() other.call.endless() end
        say "leaving"
      ]], command)
      assert.same({ "leaving" }, lines, written)
      assert.equal(wanted, code, written)
    end
  end)

  it("is attached to once; by hand in the place of by itself", function()
    says({ "treadle.attachment: nvim", "attached to nvim already", "no options", "3", "4" }, [[
      local treadle = require "treadle"
      local joint = treadle.attach "nvim"
      say(joint)
      say(select(2, pcall(treadle.attach, uv)):match "attached to nvim already")
      joint:detach()
      joint:detach()
      say(select(2, pcall(treadle.attach, uv, { budget = 1 })):match "no options")
      joint = treadle.attach(uv)
      local pool = treadle.pool("nvim_tasks")
      say(pool.call.add(1, 2):await())
      joint:detach()
      treadle.attach()
      say(pool.call.add(1, 3):await())
    ]])
  end)

  it("lets workers find modules in the folders of its plugins", function()
    says({ "true true" }, ([[
      vim.cmd("set runtimepath+=" .. %q)
      local treadle = require "treadle"
      local pool = treadle.pool("treadle_grep.tasks", { threads = 1 })
      local list = pool.call.files(%q):await()
      say(#list > 2, vim.tbl_contains(list, %q))
    ]]):format(EXAMPLE, EXAMPLE, EXAMPLE .. "/plugin/treadle_grep.lua"))
  end)

  it("sends the functions of a table, and runs no script of the editor's in a worker", function()
    says({ "before", "2" }, [[
      local treadle = require "treadle"
      say "before" -- who runs the head of this script again empties the file that this is in
      local pool = treadle.pool({ second = function(list) return list[2] end }, { threads = 2 })
      say(pool.call.second({ 1, 2 }):await())
      pool:close()
    ]])
  end)

  it("runs the examples of its page", function()
    local count = 0
    for block in helpers.read(helpers.folder .. "/../../docs/neovim.md")
      :gmatch "```lua nvim\n(.-)```" do
      count = count + 1
      says({ "well" }, block .. '\nsay "well"')
    end
    assert.is_true(count >= 2)
  end)

  describe("with the plugin of the examples", function()
    local tree
    local FILES, LINES = 400, 1000

    local START = [[
      vim.cmd("set runtimepath+=" .. %q)
      vim.cmd "runtime plugin/treadle_grep.lua"
      local grep = require "treadle_grep"
      local tree = %q
    ]]

    setup(function()
      tree = helpers.new_path ".tree"
      os.execute(("mkdir -p %s/a/b %s/c"):format(tree, tree))
      for i = 1, FILES do
        local text = {}
        for j = 1, LINES do
          text[j] = ("%d: local value_%d = %d -- of a file that is searched"):format(j, i * j,
            i * j % 7919)
        end
        helpers.write(("%s/%s/file%d.lua"):format(tree, ({ "a", "a/b", "c" })[i % 3 + 1], i),
          table.concat(text, "\n") .. (i % 5 == 0 and "" or "\n"))
      end
      helpers.write(tree .. "/c/binary", "value_77 \0 value_77\n")
    end)

    local function start()
      return START:format(EXAMPLE, tree)
    end

    it("finds what grep finds, while the editor's timers go on", function()
      local lines, written, code = edit(start() .. [[
        local function watch(fn)
          local timer, last, longest, ticks = uv.new_timer(), uv.hrtime(), 0, 0
          local function look()
            longest, last = math.max(longest, uv.hrtime() - last), uv.hrtime()
          end
          timer:start(10, 10, function() ticks = ticks + 1 look() end)
          fn()
          look()
          timer:close()
          return longest / 1e6, ticks
        end
        local status
        local gap, ticks = watch(function()
          grep.search("value_%d*77 ", {
            folder = tree, on_done = function(s) status = s end,
          })
          vim.wait(60000, function() return status end, 5)
        end)
        local tasks = require "treadle_grep.tasks"
        local inline = watch(function() tasks.search(tasks.files(tree), "value_%d*77 ") end)
        say(status)
        say(gap, ticks, inline)
        for _, hit in ipairs(vim.fn.getqflist()) do
          say(("%s:%d:%s"):format(vim.fn.bufname(hit.bufnr), hit.lnum, hit.text))
        end
      ]])
      assert.equal(0, code, written)
      local found = {}
      for i = 3, #lines do
        found[#found + 1] = lines[i]
      end
      table.sort(found)
      local expected = {}
      local out = helpers.shell(("grep -rnI 'value_[0-9]*77 ' %s"):format(tree))
      for line in out:gmatch "[^\n]+" do
        expected[#expected + 1] = line
      end
      table.sort(expected)
      assert.is_true(#expected > 100)
      assert.same(expected, found)
      assert.equal(("grep: %d of %d files, %d hits"):format(FILES + 1, FILES + 1, #expected),
        lines[1])
      local gap, ticks, inline = lines[2]:match "(%S+) (%S+) (%S+)"
      print(("# longest gap of a 10 ms timer: %.1f ms in %d ticks; searched inline: %.1f ms")
        :format(gap, ticks, inline))
      assert.is_true(tonumber(ticks) > 2)
      assert.is_true(tonumber(gap) < tonumber(inline), lines[2])
    end)

    it("ends a search by a new one, and by its command", function()
      says({ "true", "grep: the search was cancelled", "grep: the search was cancelled" },
        start() .. [[
        local first, second, third
        grep.search("value", { folder = tree, on_done = function(s) first = s end })
        vim.wait(60000, function() return grep.status():find "of 401 files" end, 1)
        grep.search("value_77 ", { folder = tree, plain = true, on_done = function(s)
          second = s
        end })
        vim.wait(60000, function() return first and second end, 5)
        say(second:find "401 of 401 files, %d+ hits$" ~= nil)
        say(first)
        grep.search("value", { folder = tree, on_done = function(s) third = s end })
        vim.wait(60000, function() return grep.status():find "of 401 files" end, 1)
        vim.cmd "GrepCancel"
        vim.wait(60000, function() return third end, 5)
        say(third)
      ]])
    end)

    it("leaves at once while a search is under way", function()
      says({ "true" }, start() .. [[
        grep.search("value", { folder = tree })
        vim.wait(60000, function() return grep.status():find "of 401 files" end, 1)
        say(grep.status():match "%.%.%.$" ~= nil)
      ]])
    end)
  end)
end)
