--- Recordings, read again: `treadle trace`.
local helpers = require "helpers"
local treadle = require "treadle"
local files = require "files"
local timeline = require "treadle.timeline"

describe("a recording that is read", function()
  local path

  --- A worker runs "f" (call 1) in [10, 20] and [40, 45], "g" (call 2) in [20, 30], which failed.
  local EVENTS = [=[[
{"ph":"M","pid":1,"tid":0,"name":"process_name","args":{"name":"a<b&c"}},
{"ph":"M","pid":1,"tid":0,"name":"thread_name","args":{"name":"host"}},
{"ph":"X","pid":1,"tid":0,"ts":0,"dur":1,"cat":"call","name":"call f","args":{"call":1}},
{"ph":"C","pid":1,"tid":0,"ts":1,"name":"queued","args":{"calls":1}},
{"ph":"X","pid":1,"tid":0,"ts":2,"dur":1,"cat":"call","name":"call g","args":{"call":2}},
{"ph":"C","pid":1,"tid":0,"ts":3,"name":"queued","args":{"calls":2}},
{"ph":"X","pid":1,"tid":1,"ts":10,"dur":10,"cat":"run","name":"f","args":{"call":1}},
{"ph":"b","pid":1,"tid":1,"ts":20,"cat":"wait","id":"1","name":"f waits"},
{"ph":"X","pid":1,"tid":1,"ts":20,"dur":10,"cat":"run","name":"g",
"args":{"call":2,"outcome":"task"}},
{"ph":"e","pid":1,"tid":1,"ts":40,"cat":"wait","id":"1","name":"f waits"},
{"ph":"X","pid":1,"tid":1,"ts":40,"dur":5,"cat":"run","name":"f",
"args":{"call":1,"outcome":"done"}},
{"ph":"X","pid":1,"tid":0,"ts":50,"dur":50,"cat":"result","name":"result f","args":{"call":1}},
{"ph":"i","pid":1,"tid":1,"ts":60,"s":"t","cat":"worker","name":"closed"}
]]=]

  before_each(function()
    path = helpers.write(helpers.new_path(".json"), EVENTS)
  end)

  teardown(helpers.clean)

  it("has calls with their pieces, in tracks", function()
    local _, events = assert(timeline.read(path))
    local model = timeline.model(events)
    assert.same({ "a<b&c", 100, 11, 0 }, { model.title, model.stop, model.events, model.lost })
    assert.same({ "host", "worker 1" }, { model.tracks[1].name, model.tracks[2].name })
    assert.same({ 3, 1 }, { #model.tracks[2].slices, model.tracks[2].lanes })
    assert.same(20, model.tracks[2].waits[1].dur)
    assert.same({ 2, 1 }, { #model.calls[1].runs, #model.calls[2].runs })
    assert.same({ 0, 50 }, { model.calls[1].made.ts, model.calls[1].home.ts })
    assert.is_nil(model.calls[2].home)
    assert.same({ 1, 2 }, { model.samples[1].calls, model.samples[2].calls })
  end)

  it("is summed up", function()
    local _, events = assert(timeline.read(path))
    local head, workers, tasks = timeline.summary(timeline.model(events)):match(
      "^(.-)\n\n(.-)\n\n(.-)\n$")
    assert.same("a<b&c: 11 events in 100 µs, 2 calls, 1 of them home, at most 2 queued", head)
    assert.same("worker    pieces     busy  utilisation\n"
      .. "worker 1       3  25.0 µs         25 %", workers)
    local function cells(line)
      local list = {}
      for cell in line:gmatch "%d[%d.]*" do
        list[#list + 1] = tonumber(cell)
      end
      return list
    end
    local lines = {}
    for line in tasks:gmatch "[^\n]+" do
      lines[#lines + 1] = line
    end
    assert.matches("^task +ended +failed +in progress: p50 +p90 +p99 +max +queued: p50", lines[1])
    assert.same({ 1, 0, 35, 35, 35, 35, 10, 10, 10, 10 }, cells(lines[2]:match "^f(.*)$"))
    assert.same({ 1, 1, 10, 10, 10, 10, 18, 18, 18, 18 }, cells(lines[3]:match "^g(.*)$"))
  end)

  it("nests slices, and gives waits at the same time lanes of their own", function()
    local function slice(ts, dur, cat, id)
      return { ph = cat == "wait" and "b" or "X", tid = 1, ts = ts, dur = dur, cat = cat,
        name = "f", id = id, args = {} }
    end
    local model = timeline.model { slice(0, 10, "run"), slice(2, 3, "call"), slice(5, 5, "call"),
      slice(10, 2, "run"), slice(1, nil, "wait", "1"), slice(2, nil, "wait", "2"),
      { ph = "e", tid = 1, ts = 4, cat = "wait", id = "1" }, slice(5, nil, "wait", "3") }
    local depths, lanes = {}, {}
    for i, s in ipairs(model.tracks[1].slices) do
      depths[i] = s.depth
    end
    for i, s in ipairs(model.tracks[1].waits) do
      lanes[i] = s.lane
    end
    assert.same({ { 0, 1, 1, 0 }, { 0, 1, 0 } }, { depths, lanes })
  end)

  it("may lack its end", function()
    for _, cut in ipairs { EVENTS:sub(1, -3), EVENTS:sub(1, -4), EVENTS:sub(1, -40),
      EVENTS:match "^(.*),\n[^\n]*\n%]" } do
      helpers.write(path, cut)
      local text, events = timeline.read(path)
      assert.is_string(text, events)
      assert.is_true(#events >= 12)
      assert.same(#events, #require("treadle.json").decode(text))
    end
  end)

  it("may be an object, as others write it", function()
    helpers.write(path, '{"displayTimeUnit":"ns","traceEvents":' .. EVENTS .. "}")
    local _, events = assert(timeline.read(path))
    assert.same(13, #events)
  end)

  it("is refused where it is none", function()
    assert.same({ nil, "/nowhere/x.json: No such file or directory" },
      { timeline.read "/nowhere/x.json" })
    for text, problem in pairs {
      [""] = " is no JSON: line 1: a value expected",
      ["{}"] = " is no recording: a list of trace events expected",
      ["[1, 2]"] = " is no recording: a list of trace events expected",
      ["3"] = " is no recording: a list of trace events expected",
      ["[{]"] = " is no JSON: line 1: a name in quotes expected",
    } do
      helpers.write(path, text)
      assert.same({ nil, path .. problem }, { timeline.read(path) })
    end
    local _, problem = timeline.read "/"
    assert.matches("^/: ", problem)
  end)

  it("becomes a page that holds it, whatever its names are", function()
    helpers.write(path, (EVENTS:gsub('"closed"', '"</script><!--<script>"')))
    local text = assert(timeline.read(path))
    local page = timeline.page(text)
    local data = page:match '<script type="application/json" id="trace">(.-)</script>'
    assert.is_nil(data:find("<", 1, true))
    local events = require("treadle.json").decode(data)
    assert.same("</script><!--<script>", events[13].name)
    assert.is_nil(page:find "%ssrc=" or page:find "https?://") -- nothing is loaded
  end)

  --- Check that each element is closed, and where; count those with a name.
  local function check_xml(text)
    local open, counts = {}, {}
    for close, name, empty in text:gmatch "<(/?)([%w]+)[^<>]-(/?)>" do
      if close == "/" then
        assert.same(table.remove(open), name)
      elseif empty == "" then
        open[#open + 1] = name
      end
      counts[name] = (counts[name] or 0) + (close == "" and 1 or 0)
    end
    assert.same({}, open)
    return counts
  end

  it("becomes a picture", function()
    local _, events = assert(timeline.read(path))
    local picture = require("treadle.timeline_svg").draw(timeline.model(events))
    local counts = check_xml(picture)
    assert.same(1 + 3 + 3 + 1 + 1, counts.rect) -- back, host, worker, its wait, a failure
    assert.truthy(picture:find("a&#60;b&#38;c", 1, true))
    assert.truthy(picture:find(">worker 1<", 1, true))
    check_xml(files.read "docs/pictures/timeline.svg")
  end)

  it("becomes a picture however long it took", function()
    local draw = require("treadle.timeline_svg").draw
    jit.off() -- where the least and the greatest of 0 and -0 may be others
    finally(jit.on)
    for exponent = -1, 8 do
      for _, n in ipairs { 1, 1.1, 2, 4.5, 7, 9.99 } do
        local stop = n * 10 ^ exponent
        local picture = draw(timeline.model { { ph = "X", pid = 1, tid = 1, ts = 0, dur = stop,
          cat = "run", name = "add", args = { call = 1, outcome = "done" } } })
        assert.truthy(check_xml(picture).text >= 4, stop) -- the title, and what is on the axis
        assert.is_nil(picture:find "[^%w]nan" or picture:find "[^%w]inf", stop)
      end
    end
  end)

  it("is shown by the command", function()
    local quoted = helpers.quote(path)
    local out, err, code = helpers.shell("treadle trace " .. quoted)
    assert.same({ "", 0 }, { err, code })
    assert.matches("^a<b&c: 11 events", out)
    for _, kind in ipairs { "html", "svg" } do
      out, err, code = helpers.shell(("treadle trace %s --%s"):format(quoted, kind))
      assert.same({ ("wrote %s.%s\n"):format(path, kind), "", 0 }, { out, err, code })
      local other = helpers.new_path()
      helpers.shell(("treadle trace --%s %s %s"):format(kind, quoted, helpers.quote(other)))
      assert.same(helpers.read(path .. "." .. kind), helpers.read(other))
      assert.matches(kind == "html" and "^<!doctype html>" or "^<svg ", helpers.read(other))
    end
    assert.matches("^usage: treadle trace FILE", (helpers.shell "treadle trace --help"))
  end)

  it("is not, where the command is used in another way", function()
    for words, expected in pairs {
      [""] = { 2, "^treadle trace: a file is missing\nusage: " },
      ["nosuch.json"] = { 1, "^treadle trace: nosuch.json: No such file or directory\n$" },
      ["x --hmtl"] = { 2, "^treadle trace: unknown option '%-%-hmtl', did you mean '%-%-html'" },
      ["x --svg --html"] = { 2, "^treadle trace: one of %-%-html and %-%-svg at a" },
      ["x y"] = { 2, "^treadle trace: 'y' is too much\n" },
      [helpers.quote(path) .. " --svg /nowhere/x.svg"] = { 1,
        "^treadle trace: cannot write /nowhere/x.svg: No such file or directory\n$" },
    } do
      local out, err, code = helpers.shell("treadle trace " .. words)
      assert.same({ "", expected[1] }, { out, code })
      assert.matches(expected[2], err)
    end
  end)

  it("is what pool:trace has written", function()
    local pool = treadle.pool("tasks", { threads = 2 })
    local trace = pool:trace(path)
    for i = 1, 100 do
      pool.call.add(i, 1):await()
    end
    pool.call.sleep(0.001):await()
    pool:close()
    local _, events = assert(timeline.read(path))
    local model = timeline.model(events)
    assert.same({ trace:close(), 0 }, { model.events, model.lost })
    local homes = 0
    for _, call in pairs(model.calls) do
      homes = homes + (call.made and call.home and #call.runs > 0 and 1 or 0)
    end
    assert.same(101, homes)
    assert.matches("add +100 +0 ", timeline.summary(model))
  end)

  it("is in docs/trace.html with the page of today", function()
    local page = files.read "docs/trace.html"
    local data = page:match '<script type="application/json" id="trace">(.-)</script>'
    assert.same(timeline.page(data), page)
  end)
end)
