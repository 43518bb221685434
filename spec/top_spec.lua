-- pool:top() and `treadle top`: what a view says, how it is laid out and drawn, and that a terminal
-- is afterwards as it was before.
require "path"
local helpers = require "helpers"
local Screen = require "screen"
local treadle = require "treadle"
local paint = require "treadle.top_paint"
local text = require "treadle.top_text"
local view = require "treadle.top_view"

-- --- snapshots -----------------------------------------------------------------------------------

local function times(seconds)
  return { p50 = seconds, p90 = seconds * 2, p99 = seconds * 30, max = seconds * 400,
    mean = seconds }
end

--- A snapshot of a pool that has been open for so long; each worker has had a tenth of the jobs.
local function snapshot(given)
  local workers, jobs = {}, given.jobs or 0
  for id = 1, given.threads or 2 do
    workers[id] = { id = id, jobs = jobs / 10, busy = given.busy or 0, heap = 173 * 1024, cpu = 0,
      utilisation = (given.busy or 0) / (given.uptime or 1) }
  end
  return {
    name = given.name or "pool", state = given.state or "open", threads = given.threads or 2,
    running = given.running or {},
    stats = {
      submitted = jobs, queued = given.queued or 0, running = 0, done = jobs,
      failed = given.failed or 0, cancelled = 0, uptime = given.uptime or 1,
      utilisation = (given.busy or 0) / (given.uptime or 1), restarts = given.restarts or 0,
      written_off = given.written_off or 0, workers = workers,
      tasks = given.tasks or { add = { runs = jobs, failures = given.failed or 0,
        run = times(2e-6), wait = times(0.0012) } },
    },
  }
end

local LONG = ("a_very_long_name_"):rep(20)
local NAMES = { "add", LONG, ("größe_"):rep(30), ("漢字"):rep(40), "e" .. ("\204\129"):rep(99),
  "\27[31mred\27[0m", "tab\there\nand there", "\255\254\192\128", "" }

--- Snapshots of all kinds, with what each is for.
local function snapshots()
  local list = {
    ["no calls"] = snapshot {},
    ["one worker"] = snapshot { threads = 1, jobs = 10, busy = 0.5,
      running = { { worker = 1, task = "add", since = 0.25 } } },
    ["64 workers"] = snapshot { threads = 64, jobs = 1e9, busy = 1, failed = 12345, uptime = 9e5,
      queued = 1e7, restarts = 3, written_off = 1,
      running = { { worker = 3, task = LONG, since = 1e5 },
        { worker = 64, task = "add", since = 0 }, { worker = 64, task = "sub", since = 3 } } },
    ["a closed pool"] = snapshot { state = "closed", jobs = 100, busy = 0.1 },
    ["a pool that closes"] = snapshot { state = "closing", jobs = 100, busy = 0.1 },
    ["no worker"] = snapshot { threads = 0 },
  }
  list["a closed pool"].threads = 0
  for i, name in ipairs(NAMES) do
    local tasks = { [name] = { runs = 5, failures = 5, run = times(100), wait = times(1e-9) },
      other = { runs = 1, failures = 0, run = times(0), wait = times(0) } }
    list["name " .. i] = snapshot { name = name, tasks = tasks, jobs = 5,
      running = { { worker = 1, task = name, since = 1e-7 } } }
  end
  return list
end

--- The text of each column of a line, in a list; a wide character's second column is "".
local function cells(line)
  local list = {}
  for character in line:gmatch "[%z\1-\127\194-\244][\128-\191]*" do
    local width = text.width(character)
    if width > 0 then
      list[#list + 1] = character
    end
    if width == 2 then
      list[#list + 1] = ""
    end
  end
  return list
end

--- The line in which a word stands, and its number.
local function line_with(lines, word)
  for i, line in ipairs(lines) do
    if line:find(word, 1, true) then
      return line, i
    end
  end
  error(("no line with '%s' in\n%s"):format(word, table.concat(lines, "\n")))
end

describe("the text of a view:", function()
  it("numbers keep three digits and have units", function()
    local cases = {
      { text.count, 0, "0" }, { text.count, 999, "999" }, { text.count, 1234, "1,234" },
      { text.count, 9999, "9,999" }, { text.count, 10000, "10.0k" }, { text.count, 12345, "12.3k" },
      { text.count, 999400, "999k" }, { text.count, 999500, "1.00M" },
      { text.count, 1234567890, "1.23G" }, { text.count, 9.9e13, "99.0T" },
      { text.rate, 0, "0" }, { text.rate, 0.254, "0.25" }, { text.rate, 9.996, "10.0" },
      { text.rate, 61.34, "61.3" }, { text.rate, 99.96, "100" }, { text.rate, 1234.4, "1,234" },
      { text.rate, 56789, "56.8k" },
      { text.seconds, 0, "0" }, { text.seconds, 9e-8, "0.09µs" },
      { text.seconds, 1.234e-6, "1.23µs" },
      { text.seconds, 9.996e-5, "100µs" }, { text.seconds, 0.01234, "12.3ms" },
      { text.seconds, 0.9996, "1.00s" }, { text.seconds, 75, "75.0s" },
      { text.seconds, 125, "2m05s" },
      { text.seconds, 3599.7, "1h00m" }, { text.seconds, 11220, "3h07m" },
      { text.seconds, 360000, "4d04h" },
      { text.bytes, 0, "0" }, { text.bytes, 512, "512B" }, { text.bytes, 1536, "1.50KiB" },
      { text.bytes, 3 * 2 ^ 20, "3.00MiB" }, { text.bytes, 2 ^ 40, "1.00TiB" },
      { text.share, 0.984, "98%" },
    }
    for _, case in ipairs(cases) do
      assert.equal(case[3], (case[1](case[2])))
    end
    assert.equal("12.3us", text.seconds(1.23e-5, true))
  end)

  it("is cut with an ellipsis, by columns and between characters", function()
    assert.same({ "abc", 3 }, { text.cut("abc", 3) })
    assert.same({ "ab…", 3 }, { text.cut("abcd", 3) })
    assert.same({ "ab.", 3 }, { text.cut("abcd", 3, true) })
    assert.same({ "größ…", 5 }, { text.cut("größenwahn", 5) })
    assert.same({ "漢…", 3 }, { text.cut("漢字漢字", 4) })
    assert.same({ "漢字", 4 }, { text.cut("漢字", 4) })
    assert.same({ "…", 1 }, { text.cut("漢字", 1) })
    assert.same({ "", 0 }, { text.cut("abc", 0) })
    assert.equal("ab   ", text.fit("ab", 5))
    assert.equal("   ab", text.fit("ab", 5, true))
    assert.equal("漢… ", text.fit("漢字漢字", 4))
  end)

  it("moves no cursor, whatever bytes are in it", function()
    for _, name in ipairs(NAMES) do
      local shown = text.cut(name, 1000)
      assert.is_nil(shown:find "[%z\1-\31\127]")
      assert.equal(text.width(name), text.width(shown))
    end
    assert.equal("????", (text.cut("\255\254\192\128", 10)))
    assert.equal("a?[31mb", (text.cut("a\27[31mb", 10)))
    assert.equal(1, text.width "e\204\129")
  end)
end)

--- The heads of columns whose contents begin with them; the others end with them.
local LEFT = { task = true, busy = true, runs = true }

describe("the lines of a view", function()
  for what, now in pairs(snapshots()) do -- a test of each: together they would look like a hang
    it("are never wider than they may be: " .. what, function()
      for width = 1, 200 do
        for _, ascii in ipairs { false, true } do
          for _, line in ipairs(view.pool(nil, now, { width = width, ascii = ascii })) do
            assert.is_true(text.width(line) <= width, ("width %d: %s"):format(width, line))
          end
          assert.is_true(text.width(view.summary(now, { width = width })) <= width)
        end
      end
    end)
  end

  it("are the same with colours, but for these, and each colour ends on its line", function()
    for _, now in pairs(snapshots()) do
      for _, width in ipairs { 30, 80, 140 } do
        local plain = view.pool(nil, now, { width = width })
        local coloured = view.pool(nil, now, { width = width, colour = true })
        assert.equal(#plain, #coloured)
        for i, line in ipairs(coloured) do
          assert.equal(plain[i], (line:gsub("\27%[%d+m", ""):gsub(" +$", "")))
          local open = false
          for code in line:gmatch "\27%[(%d+)m" do
            assert.equal(open, code == "0")
            open = not open
          end
          assert.is_false(open)
        end
      end
    end
  end)

  it("have columns: what is in one begins or ends where its head does", function()
    local checked = 0
    for what, now in pairs(snapshots()) do
      for width = 20, 160 do
        local head
        for _, line in ipairs(view.pool(nil, now, { width = width })) do
          local row = cells(line)
          if line == "" or line:find "^ *… %d+ more" then
            head = nil
          elseif head then
            for left, word, right in head:gmatch "()([^ ]+)()" do
              local is_left = LEFT[word]
              local where = ("%s, width %d:\n%s\n%s"):format(what, width, head, line)
              assert.equal(" ", row[is_left and left - 1 or right] or " ", where)
              if word ~= "for" and not is_left then
                assert.is_true(row[right - 1] ~= " ", where)
                checked = checked + 1
              end
            end
          elseif line:find "^ +# " or line:find "^task " then
            head = line
          end
        end
      end
    end
    assert.is_true(checked > 10000)
  end)

  it("give every number of a task and of a worker its own column, under its head", function()
    local now = snapshot { jobs = 50, busy = 0.5, uptime = 10, failed = 7,
      running = { { worker = 2, task = "add", since = 0.25 } } }
    local lines = view.pool(nil, now, { width = 100 })
    local head, at = line_with(lines, "task ")
    local expected = { calls = "50", ["/s"] = "5.00", fail = "7" }
    for name, value in pairs(expected) do
      local _, right = head:find(name, 1, true)
      assert.equal(value, lines[at + 1]:sub(1, right):match "[^ ]+$")
    end
    local found = {}
    for word in lines[at + 1]:gmatch "[^ ]+" do
      found[#found + 1] = word
    end
    assert.same({ "add", "50", "5.00", "7", "1.20ms", "2.40ms", "36.0ms", "480ms",
      "2.00µs", "4.00µs", "60.0µs", "800µs" }, found)
    at = select(2, line_with(lines, " cpu "))
    assert.matches("^  1 [█░]+ +5%% +0%% +173KiB +5 +0.50 +idle$", lines[at + 1])
    assert.matches("^  2 [█░]+ +5%% +0%% +173KiB +5 +0.50 +250ms add$", lines[at + 2])
  end)

  it("say the rates since the snapshot before, and those of its life without one", function()
    local before = snapshot { jobs = 1000, busy = 1, uptime = 10 }
    local now = snapshot { jobs = 1500, busy = 1.25, uptime = 10.5 }
    assert.matches("1,000 calls/s", (line_with(view.pool(before, now), "calls/s")))
    assert.matches("50%% busy", (line_with(view.pool(before, now), "% busy")))
    assert.matches("143 calls/s", (line_with(view.pool(nil, now), "calls/s")))
    assert.matches("12%% busy", (line_with(view.pool(nil, now), "% busy")))
    now.state = "closed"
    assert.matches("143 calls/s", (line_with(view.pool(before, now), "calls/s")))
    now.state = "open"
    assert.matches("143 calls/s", (line_with(view.pool(now, now), "calls/s")))
  end)

  it("fold workers: those that run something come first", function()
    local now = snapshots()["64 workers"]
    local lines = view.pool(nil, now, { width = 80, workers = 12 })
    local rows, last = {}, nil
    for _, line in ipairs(lines) do
      rows[#rows + 1] = tonumber(line:match "^ +(%d+) [█░]")
      last = line:match "more" and line or last
    end
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 64 }, rows)
    assert.equal("  … 52 more idle", last)
    assert.matches("sub +1$", (line_with(lines, "sub"):gsub("%+", " ")))
    for id = 1, 40 do
      now.running[id] = { worker = id, task = "add", since = 1 }
    end
    assert.equal("  … 28 more busy, 24 more idle",
      (line_with(view.pool(nil, now, { workers = 12 }), "more")))
    lines = view.pool(nil, snapshots()["one worker"])
    assert.is_false(pcall(line_with, lines, "more"))
    assert.matches("1 worker ", (line_with(lines, "% busy")))
  end)

  it("name the tasks that were called most, and count the others", function()
    local tasks = {}
    for i = 1, 20 do
      local name = ("task%02d"):format(i)
      tasks[name] = { runs = i - 1, failures = 0, run = times(1), wait = times(1) }
    end
    local lines = view.pool(nil, snapshot { tasks = tasks }, { tasks = 3 })
    local names = table.concat(lines, "\n")
    assert.matches("task18.*task19.*task20.*… 16 more", names)
    assert.is_nil(names:find "task17")
  end)

  it("say what is not there", function()
    assert.is_truthy(line_with(view.pool(nil, snapshot {}), "no calls yet"))
    local kinds = snapshots()
    assert.matches("closed after 1.00s$", view.pool(nil, kinds["a closed pool"])[1])
    assert.matches("closing, open for 1.00s$", view.pool(nil, kinds["a pool that closes"])[1])
    assert.matches("0 workers", (line_with(view.pool(nil, kinds["no worker"]), "worker")))
    assert.matches("1 stuck in C", table.concat(view.pool(nil, kinds["64 workers"]), "\n"))
  end)
end)

describe("what is drawn on a terminal", function()
  local function lines(n, word)
    local list = {}
    for i = 1, n do
      list[i] = (word or "line ") .. i
    end
    return list
  end

  it("takes the place of what was there, and keeps other text above", function()
    local screen, painter = Screen.new(20, 10), paint.new()
    screen:write("$ treadle\n")
    screen:write(painter:paint(lines(3), 20, 10))
    assert.equal("$ treadle\nline 1\nline 2\nline 3\n", screen:text())
    painter:add("hello\n")
    screen:write(painter:paint(lines(2, "row "), 20, 10))
    assert.equal("$ treadle\nhello\nrow 1\nrow 2\n", screen:text())
    screen:write(painter:paint(lines(4), 20, 10))
    assert.equal("$ treadle\nhello\nline 1\nline 2\nline 3\nline 4\n", screen:text())
  end)

  it("shows a line that has not ended, once", function()
    local screen, painter = Screen.new(20, 10), paint.new()
    painter:add("your name? ")
    screen:write(painter:paint(lines(1), 20, 10))
    assert.equal("your name?\nline 1\n", screen:text())
    painter:add("Bob\nhello")
    screen:write(painter:paint(lines(1), 20, 10))
    assert.equal("your name? Bob\nhello\nline 1\n", screen:text())
    screen:write(painter:paint(lines(1), 20, 10, true))
    assert.equal("your name? Bob\nhello\nline 1\n", screen:text())
    painter:add("!")
    screen:write(painter:paint(lines(1), 20, 10, true))
    assert.equal("your name? Bob\nhello\n!\nline 1\n", screen:text())
  end)

  it("keeps all text and one picture, also where both are longer than the terminal", function()
    local screen, painter, expected = Screen.new(12, 5), paint.new(), {}
    for i = 1, 30 do
      expected[i] = "text " .. i
      painter:add(expected[i] .. "\n")
      screen:write(painter:paint(lines(i % 9), 12, 5))
    end
    screen:write(painter:paint(lines(9), 12, 5))
    assert.equal(table.concat(expected, "\n") .. "\nline 1\nline 2\nline 3\n...\n", screen:text())
    screen:write(painter:paint(lines(9), 12, math.huge))
    assert.equal(table.concat(expected, "\n") .. "\n" .. table.concat(lines(9), "\n") .. "\n",
      screen:text())
  end)

  it("is erased although the terminal has become narrower", function()
    local screen, painter = Screen.new(10, 10), paint.new()
    screen:write("before\n")
    screen:write((painter:paint({ ("x"):rep(18), "short" }, 20, 10))) -- wraps, as after the change
    screen:write(painter:paint(lines(1), 10, 10))
    assert.equal("before\nline 1\n", screen:text())
  end)

  it("does not take on the colours of other text", function()
    local painter = paint.new()
    painter:add("\27[31mred\n")
    assert.matches("\27%[31mred\n\27%[0m", painter:paint(lines(1), 20, 10))
  end)
end)

describe("pool:top", function()
  local done, pool

  setup(function() done = helpers.watch() end)
  after_each(function()
    pool:terminate()
    pool:close()
    pool = nil
  end)
  teardown(function()
    done()
    helpers.clean()
  end)

  it("gives the text of one view", function()
    pool = treadle.pool("tasks", { threads = 2, name = "calculator" })
    for i = 1, 20 do
      pool.call.add(i, 1):await()
    end
    pool.call.boom("no"):pawait()
    local shown = pool:top { once = true }
    assert.matches("^calculator +open for [%d.]+m?s\n", shown)
    assert.matches("20 done   1 failed   0 cancelled", shown)
    assert.matches("\nadd +[%d.,k]+ +0 ", shown)
    assert.matches("\nboom +[%d.,k]+ +1 ", shown)
    assert.matches("\n$", shown)
    for line in shown:gmatch "[^\n]+" do
      assert.is_true(text.width(line) <= 80)
    end
    shown = pool:top { once = true, width = 33 }
    for line in shown:gmatch "[^\n]+" do
      assert.is_true(text.width(line) <= 33)
    end
  end)

  it("says which task each worker runs", function()
    pool = treadle.pool("tasks", { threads = 2 })
    local gate = helpers.new_path(".gate")
    local f = pool.call.block(gate)
    helpers.entered(gate .. ".entered")
    local shown = pool:top { once = true }
    helpers.write(gate, "")
    f:await()
    assert.matches(" [%d.]+[^ ]-s block\n", shown)
  end)

  it("works for a task, and after the pool was closed", function()
    pool = treadle.pool("tasks", { threads = 1 })
    local shown = pool:run(function()
      return treadle.worker.pool:top { once = true }
    end):await()
    assert.matches("function\n", shown)
    pool:close()
    shown = pool:top { once = true }
    assert.matches("^tasks +closed after", shown)
    assert.matches("1 done", shown)
    assert.matches("\nfunction ", shown)
  end)

  it("draws again and again, while the host waits, until it is closed", function()
    pool = treadle.pool("tasks", { threads = 1 })
    local texts, enough, resolve = {}, treadle.future()
    local seen = pool:top { interval = 0.001, write = function(t)
      texts[#texts + 1] = t
      if #texts == 5 then
        resolve()
      end
    end }
    enough:await()
    seen:close()
    local count = #texts
    assert.is_true(count >= 6)
    seen:close()
    seen:draw()
    treadle.sleep(0.005)
    assert.equal(count, #texts)
    assert.equal(math.huge, treadle.next_timeout())
    for i, one in ipairs(texts) do
      assert.equal(i > 1, one:sub(1, 1) == "\n")
      assert.is_nil(one:find("\27", 1, true))
    end
  end)

  it("draws for the last time when its pool is closed", function()
    pool = treadle.pool("tasks", { threads = 1 })
    local texts = {}
    pool:top { interval = 3600, write = function(t) texts[#texts + 1] = t end }
    assert.equal(1, #texts)
    pool.call.add(1, 2):await()
    pool:close()
    treadle.poll()
    assert.equal(2, #texts)
    assert.matches("closed after", texts[2])
    assert.matches("1 done", texts[2])
    assert.equal(math.huge, treadle.next_timeout())
  end)

  it("ends when it cannot be written, and says why", function()
    local out, err, code = helpers.child("treadle", [[
      local pool = treadle.pool("tasks", { threads = 1 })
      local n = 0
      pool:top { interval = 0.001, write = function()
        n = n + 1
        if n == 2 then error("disk full", 0) end
      end }
      treadle.sleep(0.05)
      print(n)
      pool:close()
      print(n)
    ]])
    assert.same({ "2\n2\n", "treadle: a view of pool 'tasks' has ended: disk full\n", 0 },
      { out, err, code })
    pool = treadle.pool("tasks", { threads = 1 })
  end)

  it("does not keep the command from ending", function()
    local out, err, code = helpers.child("treadle", [[
      local pool = treadle.pool("tasks", { threads = 1 })
      pool:top { interval = 0.001, write = function() end }
      pool:top { interval = 3600, write = function() end }
      pool.call.add(1, 2):and_then(print)
      treadle.spawn(function() treadle.sleep(0.01) print "slept" end)
    ]])
    assert.same({ "3\nslept\n", "", 0 }, { out, err, code })
    pool = treadle.pool("tasks", { threads = 1 })
  end)

  it("checks what it is given", function()
    pool = treadle.pool("tasks", { threads = 1 })
    local bad = "bad argument #1 to 'top' "
    assert.equal(bad .. "(unknown option 'intervall', did you mean 'interval'?)",
      helpers.error_here(function() pool:top { intervall = 1 } end))
    assert.equal(bad .. "(option 'interval': seconds, more than 0 expected, got 0)",
      helpers.error_here(function() pool:top { interval = 0 } end))
    assert.equal(bad .. "(option 'width': a whole number of at least 1 expected, got 0)",
      helpers.error_here(function() pool:top { width = 0 } end))
    assert.matches("'top' %(pool expected", helpers.error_here(function() pool.top() end))
    local seen = pool:top { interval = 3600, write = function() end }
    assert.matches("'close' %(view expected", helpers.error_here(function() seen.close() end))
    seen:close()
  end)
end)

describe("treadle top", function()
  teardown(helpers.clean)

  local SCRIPT = [[
    local pool = treadle.pool("tasks", { threads = 2, name = "numbers" })
    for i = 1, 10 do print("line " .. i, pool.call.add(i, 1):await()) end
  ]]

  local function write(script)
    return helpers.quote(helpers.write(helpers.new_path(".lua"), script))
  end

  describe("away from a terminal", function()
    it("runs the script, and writes one picture to standard error at the end", function()
      local out, err, code = helpers.shell("treadle top " .. write(SCRIPT
        .. "pool:close() print(...)") .. " a b")
      assert.equal(0, code)
      assert.matches("^line 1\t2\n.*line 10\t11\na\tb\n$", out)
      assert.matches("^numbers +closed after", err)
      assert.matches("10 done", err)
      assert.is_nil(err:find("\27", 1, true))
    end)

    it("does so after an error, and at os.exit", function()
      local _, err, code = helpers.shell("treadle top " .. write(SCRIPT .. "error('too bad')"))
      assert.equal(1, code)
      assert.matches("^numbers +open for .*10 done.*treadle: .*too bad", err)
      _, err, code = helpers.shell("treadle top " .. write(SCRIPT .. "os.exit(7)"))
      assert.equal(7, code)
      assert.matches("^numbers +open for .*10 done", err)
      _, err, code = helpers.shell("treadle top " .. write(SCRIPT .. "os.exit(7, true)"))
      assert.equal(7, code)
      assert.matches("^numbers +closed after .*10 done", err)
    end)

    it("shows several pools, those of tasks, and of many closed ones the last", function()
      local _, err, code = helpers.shell("treadle top " .. write [[
        local pool = treadle.pool("tasks", { threads = 1, name = "outer" })
        pool:run(function()
          local inner = treadle.pool("tasks", { threads = 1, name = "inner" })
          inner:close()
        end):await()
        for i = 1, 9 do treadle.pool("tasks", { threads = 1, name = "short" .. i }):close() end
      ]])
      assert.equal(0, code)
      assert.is_nil(err:find "short5")
      assert.is_nil(err:find "inner")
      assert.matches("^outer.*short6.*short7.*short8.*short9", err)
      _, err = helpers.shell("treadle top -e 'print(1)'")
      assert.equal("no pool was opened\n", err)
      _, err = helpers.shell("treadle top " .. write [[
        local pool = treadle.pool("tasks", { threads = 1, name = "outer" })
        pool:run(function()
          treadle.pool("tasks", { threads = 1, name = "inner" }):close()
        end):await()
      ]])
      assert.matches("^outer.*inner +closed", err)
    end)

    it("takes code and standard input, and says what is wrong with other arguments", function()
      assert.same({ "7\n", 0 }, { (helpers.shell("treadle top -e 'print(...)' 7")),
        select(3, helpers.shell("treadle top -e 'print(...)' 7")) })
      assert.equal("x\n", (helpers.shell("treadle top - x", "print(...)")))
      for _, arguments in ipairs { "", "-x", "-e" } do
        local _, err, code = helpers.shell("treadle top " .. arguments)
        assert.equal(2, code)
        assert.matches("usage: treadle", err, 1, true)
      end
      local _, err, code = helpers.shell("treadle top no/such/file.lua")
      assert.equal(1, code)
      assert.matches("no/such/file.lua", err, 1, true)
    end)

    it("leaves a script of that name to be run by its path", function()
      helpers.write(helpers.scratch() .. "/top", "print 'mine'")
      assert.same({ "mine\n", "", 0 }, { helpers.shell("treadle ./top") })
    end)

    it("works with standard streams closed", function()
      local _, _, code = helpers.shell("treadle top " .. write(SCRIPT) .. " <&- >&- 2>&-")
      assert.equal(0, code)
    end)

    it("does not stand in the way of a process that forks", function()
      local out, _, code = helpers.shell("treadle top " .. write [[
        local ffi = require "ffi"
        ffi.cdef "int fork(void); int waitpid(int, int *, int); void exit(int);"
        local pool = treadle.pool("tasks", { threads = 1 })
        local pid = ffi.C.fork()
        if pid == 0 then ffi.C.exit(3) end
        local status = ffi.new "int[1]"
        ffi.C.waitpid(pid, status, 0)
        print(status[0] / 256)
      ]])
      assert.same({ "3\n", 0 }, { out, code })
    end)
  end)

  describe("on a terminal", function()
    local WIDE, HIGH = 90, 30

    --- Run a script under `treadle top` on a terminal; a Ctrl-C is typed once it has called READY.
    -- PICTURES tells how many pictures of an open pool the terminal has been sent.
    -- @return the screen at the end, the bytes, the exit code, whether the terminal is as before
    local function run(script, given)
      given = given or {}
      local name = helpers.new_path()
      local path = helpers.write(name .. ".lua", ([[
        local function READY() local f = io.open(%q, "w") f:write("x") f:close() end
        local function PICTURES()
          local f = io.open(%q, "rb")
          local count = select(2, f:read("*a"):gsub("open for", ""))
          f:close()
          return count
        end
      ]]):format(name .. ".ready", name .. ".bytes") .. script)
      helpers.write(name .. ".sh", ([[
        trap : INT
        stty cols %d rows %d
        stty -g >%s.before
        %s treadle top %s %s
        echo $? >%s.code
        stty -g >%s.after
      ]]):format(given.columns or WIDE, HIGH, name, given.environment or "", path, given.to or "",
        name, name))
      local typist = given.interrupts
        and ("while [ ! -s %s.ready ]; do sleep 0.01; done; printf '\\003'"):format(name)
        or ":"
      local _, err, code = helpers.shell(([[
        { %s; while [ ! -s %s.after ]; do sleep 0.01; done; } |
        TERM=xterm SHELL=/bin/sh script -qec 'exec sh %s.sh' /dev/null >%s.bytes]]):format(
        typist, name, name, name))
      assert.same({ "", 0 }, { err, code })
      local bytes = helpers.read(name .. ".bytes"):gsub("\r\n", "\n")
      local before, after = helpers.read(name .. ".before"), helpers.read(name .. ".after")
      assert.is_true(#before > 0)
      return Screen.new(given.columns or WIDE, HIGH), bytes,
        tonumber(helpers.read(name .. ".code")), before == after
    end

    --- What the terminal is left with: nothing switched, hidden, or coloured, and the cursor below
    -- all text.
    local function check_restored(screen, bytes, is_same)
      assert.is_true(is_same)
      assert.is_nil(bytes:find("\27[?", 1, true))
      screen:write(bytes)
      assert.is_nil(screen.style)
      assert.equal(1, screen.column)
      assert.equal(#screen.lines, screen.row)
    end

    it("keeps the script's lines above the last picture, each once", function()
      local screen, bytes, code, is_same = run(SCRIPT .. [[
        while PICTURES() == 0 do end
        io.stderr:write "to stderr\n"
        io.write "no end of a line"
        pool:close()]])
      assert.equal(0, code)
      check_restored(screen, bytes, is_same)
      local seen = screen:text()
      assert.matches("^line 1 +2\n.-line 10 +11\nto stderr\nno end of a line\nnumbers +closed",
        seen)
      assert.equal(1, select(2, seen:gsub("line 7 ", "")))
      assert.equal(1, select(2, seen:gsub("numbers", "")))
      assert.is_truthy(bytes:find("\27[1mnumbers", 1, true))
      assert.is_true(select(2, bytes:gsub("numbers", "")) > 1)
    end)

    it("goes on while the host computes", function()
      local screen, bytes, code, is_same = run(SCRIPT .. [[
        local first = PICTURES()
        while PICTURES() < first + 2 do end]])
      assert.equal(0, code)
      check_restored(screen, bytes, is_same)
    end)

    it("leaves what goes to a file alone", function()
      local path = helpers.new_path(".out")
      local screen, bytes, code, is_same = run(SCRIPT, { to = ">" .. path })
      assert.equal(0, code)
      check_restored(screen, bytes, is_same)
      assert.matches("^numbers", screen:text())
      assert.matches("^line 1\t2\n.*line 10\t11\n$", helpers.read(path))
    end)

    it("draws as wide as the terminal is, or COLUMNS says, without colours for NO_COLOR", function()
      local screen, bytes = run(SCRIPT, { columns = 130, environment = "NO_COLOR=1" })
      screen:write(bytes)
      assert.is_nil(bytes:find "\27%[%d*m")
      local width = 0
      for line in screen:text():gmatch "[^\n]+" do
        width = math.max(width, text.width(line))
      end
      assert.equal(130, width)
      screen, bytes = run(SCRIPT, { environment = "COLUMNS=50" })
      width = 0
      for line in screen:write(bytes):text():gmatch "[^\n]+" do
        width = math.max(width, text.width(line))
      end
      assert.equal(50, width)
    end)

    it("is as it was after an error", function()
      local screen, bytes, code, is_same = run(SCRIPT
        .. "while PICTURES() == 0 do end error 'too bad'")
      assert.equal(1, code)
      check_restored(screen, bytes, is_same)
      assert.matches("^line 1 .*line 10 .*\nnumbers +open for.*\ntreadle: .*too bad", screen:text())
    end)

    it("is as it was after os.exit", function()
      local screen, bytes, code, is_same = run(SCRIPT .. "while PICTURES() == 0 do end os.exit(3)")
      assert.equal(3, code)
      check_restored(screen, bytes, is_same)
      assert.matches("^line 1 .*line 10 .*\nnumbers +open for", screen:text())
    end)

    it("is as it was after a Ctrl-C", function()
      local screen, bytes, code, is_same = run(SCRIPT .. [[
        pool:run(function() while true do end end)
        while PICTURES() == 0 do treadle.sleep(0.01) end
        READY()
        treadle.sleep(1000)]], { interrupts = true })
      assert.equal(130, code)
      check_restored(screen, bytes:gsub("%^C", ""), is_same)
      assert.matches("^line 1 .*line 10 .*\nnumbers +open for.*\ntreadle: interrupted\n$",
        screen:text())
    end)

    it("is as it was after a Ctrl-C while the host computes #computing", function()
      -- The process ends at once then; what the terminal itself has shown of the key may be left.
      local screen, bytes, code, is_same = run(SCRIPT .. [[
        while PICTURES() == 0 do end
        local n = 0
        READY()
        while true do n = n + 1 end]], { interrupts = true })
      assert.equal(130, code)
      assert.is_true(is_same)
      assert.is_nil(bytes:find("\27[?", 1, true))
      screen:write(bytes)
      assert.is_nil(screen.style)
      assert.matches("^line 1 .*line 10 .*\nnumbers +open for", screen:text())
    end)

    it("shows pools that come and go, and many at once, within its rows", function()
      local screen, bytes, code, is_same = run [[
        for i = 1, 60 do treadle.pool("tasks", { threads = 1, name = "brief" .. i }):close() end
        local pools = {}
        for i = 1, 12 do pools[i] = treadle.pool("tasks", { threads = 2, name = "pool" .. i }) end
        for i = 1, 12 do pools[i].call.add(i, i):await() end
        local first = PICTURES()
        while PICTURES() < first + 20 do treadle.sleep(0.01) end
        for i = 1, 12 do pools[i]:close() end]]
      assert.equal(0, code)
      check_restored(screen, bytes, is_same)
      local seen = screen:text()
      assert.matches("^pool9 +closed .*pool10 .*pool11 .*pool12 .*\nadd ", seen)
      assert.is_nil(seen:find("brief", 1, true))
      assert.is_truthy(bytes:find("\n\27[K...\n", 1, true)) -- what had no place
    end)

    it("shows what is printed without a pause, all of it", function()
      local screen, bytes, code, is_same = run [[
        for i = 1, 20000 do io.write("number ", i, "\n") end]]
      assert.equal(0, code)
      check_restored(screen, bytes, is_same)
      local i = 0
      for number in screen:text():gmatch "number (%d+)\n" do
        i = i + 1
        assert.equal(i, tonumber(number))
      end
      assert.equal(20000, i)
    end)
  end)
end)
