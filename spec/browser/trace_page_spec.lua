--- The page of a recording, in a real browser: Chromium without a window.
local helpers = require "helpers"
local treadle = require "treadle"
local timeline = require "treadle.timeline"

describe("the page of a recording", function()
  local text, browser

  --- A recording of everything that can be seen.
  local function record()
    local path = helpers.new_path(".json")
    local pool = treadle.pool("tasks", { threads = 3, concurrency = 2, name = "<b>demo & co" })
    treadle.using(pool:trace(path), function()
      local list = {}
      for i = 1, 12 do
        list[#list + 1] = pool.call.add(i, 1)
        list[#list + 1] = pool.call.call_own("add", i, 2)
      end
      for _ = 1, 6 do
        list[#list + 1] = pool.call.sleep(0.003)
      end
      list[#list + 1] = pool.call.boom("no")
      local endless = pool.call.sleep(60)
      list[#list + 1] = endless
      treadle.sleep(0.002)
      endless:cancel()
      treadle.all_settled(list):await()
      pool:resize(2):await()
    end)
    pool:close(helpers.TIMEOUT)
    return (assert(timeline.read(path)))
  end

  setup(function()
    text = record()
    for _, name in ipairs { "chromium", "chromium-browser", "google-chrome" } do
      browser = browser or select(3, helpers.shell("command -v " .. name)) == 0 and name
    end
    assert(browser, "no Chromium here: make setup-check installs it")
  end)

  teardown(helpers.clean)

  local FLAGS = "--headless --no-sandbox --disable-gpu --hide-scrollbars --enable-logging=stderr "
    .. "--no-first-run --window-size=1200,700 --virtual-time-budget=4000 --user-data-dir=%s"

  --- Open a page; `script` runs in it once it has been drawn.
  -- @return the attributes of its body, and what the console was told
  local function open(page, script, flags)
    local path = helpers.new_path(".html")
    if script then
      page = page:gsub("</body>", function()
        return "<script>{" .. script .. "}</script></body>"
      end)
    end
    helpers.write(path, page)
    local out, err, code = helpers.shell(("%s %s %s --dump-dom file://%s"):format(browser,
      FLAGS:format(helpers.new_path ".profile"), flags or "", path))
    assert.same(0, code, err)
    local body = assert(out:match("<body(.-)>"), "no page came back")
    local data, console = {}, {}
    for name, value in body:gmatch 'data%-([%w%-]+)="(.-)"' do
      data[name] = tonumber(value) or value
    end
    for line in err:gmatch "[^\n]+" do
      console[#console + 1] = line:match "CONSOLE.*"
    end
    return data, console, out
  end

  it("draws what is in it, and complains of nothing", function()
    local data, console, dom = open(timeline.page(text))
    assert.same({}, console)
    assert.is_nil(data.error)
    local _, events = assert(timeline.read(helpers.write(helpers.new_path(), text)))
    local model = timeline.model(events)
    assert.same({ model.events, #model.tracks }, { data.events, data.tracks })
    assert.is_true(data.drawn >= 20, data.drawn)
    assert.truthy(dom:find("&lt;b&gt;demo &amp; co", 1, true))
  end)

  it("paints pixels of several colours, in light and in dark", function()
    local script = [[
      const { data } = g.getImageData(0, 0, canvas.width, canvas.height);
      const colours = new Set();
      for (let i = 0; i < data.length; i += 4) {
        colours.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
      }
      document.body.dataset.colours = colours.size;
      document.body.dataset.corner = data[data.length - 4];
    ]]
    local light, console = open(timeline.page(text), script)
    assert.same({}, console)
    assert.is_true(light.colours > 10, light.colours)
    assert.is_true(light.corner > 200)
    local dark
    dark, console = open(timeline.page(text), script, "--blink-settings=preferredColorScheme=0")
    assert.same({}, console)
    assert.is_true(dark.colours > 10)
    assert.is_true(dark.corner < 60, dark.corner)
  end)

  it("zooms and moves by wheel, keys and dragging", function()
    local data, console = open(timeline.page(text), [[
      const note = name => {
        drawNow();
        document.body.dataset[name] = (to - from).toFixed(3);
        document.body.dataset[name + "At"] = ((from + to) / 2).toFixed(3);
      };
      const key = k => dispatchEvent(new KeyboardEvent("keydown", { key: k }));
      note("all");
      canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -300, clientX: 600, clientY: 300 }));
      note("wheel");
      key("d"); note("moved");
      key("w"); note("closer");
      const at = (type, x) => canvas.dispatchEvent(new PointerEvent(type,
        { clientX: x, clientY: 300, pointerId: 1 }));
      canvas.setPointerCapture = () => {};
      at("pointerdown", 600); at("pointermove", 700); at("pointerup", 700);
      note("dragged");
      key("0"); note("again");
    ]])
    assert.same({}, console)
    assert.is_true(data.wheel < data.all * 0.6)
    assert.is_true(math.abs(data.moved - data.wheel) < 0.01)
    assert.is_true(data["moved-at"] > data["wheel-at"])
    assert.is_true(data.closer < data.moved)
    assert.is_true(math.abs(data.dragged - data.closer) < 0.01)
    assert.is_true(data["dragged-at"] < data["closer-at"])
    assert.is_true(math.abs(data.again - data.all) < 0.01)
  end)

  it("says what is under the pointer, and follows a call", function()
    local data, console, dom = open(timeline.page(text), [[
      const row = rows.find(r => r.items.some(i => i.name === "sleep"));
      const item = row.items.find(i => i.name === "sleep");
      show(item.ts - item.dur, item.ts + 2 * item.dur);
      drawNow();
      const box = canvas.getBoundingClientRect();
      const point = { clientX: box.left + x(item.ts + item.dur / 2),
        clientY: box.top + row.y - scroll + 8, pointerId: 1 };
      canvas.setPointerCapture = () => {};
      canvas.dispatchEvent(new PointerEvent("pointermove", point));
      document.body.dataset.tip = tip.style.display;
      canvas.dispatchEvent(new PointerEvent("pointerdown", point));
      canvas.dispatchEvent(new PointerEvent("pointerup", point));
      drawNow();
    ]])
    assert.same({}, console)
    assert.same("block", data.tip)
    assert.truthy(dom:find("<b>sleep</b>", 1, true))
    assert.is_true(data.selected > 0)
    assert.matches('id="detail">call sleep .-result sleep', dom)
  end)

  it("finds names", function()
    local data, console, dom = open(timeline.page(text), [[
      search.value = "BOOM";
      search.dispatchEvent(new Event("input"));
      search.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
      drawNow();
    ]])
    assert.same({}, console)
    assert.same(3, data.found) -- the call, its run, its result
    assert.matches("1 of 3", dom)
  end)

  it("shows a hundred thousand events in less time than one notices", function()
    local parts = { text:match "^(.*)%s*%]" }
    for i = 1, 50000 do
      parts[#parts + 1] = (
        ',{"ph":"X","pid":1,"tid":%d,"ts":%d.5,"dur":%d,"cat":"run","name":"t%d"}'
        .. ',{"ph":"C","pid":1,"tid":0,"ts":%d,"name":"queued","args":{"calls":%d}}'):format(
        1 + i % 3, i * 10, 3 + i % 20, i % 7, i * 10, i % 100)
    end
    parts[#parts + 1] = "]"
    local data, console = open(timeline.page(table.concat(parts)), [[
      const start = performance.now();
      for (let i = 0; i < 10; i++) drawNow();
      g.getImageData(0, 0, 1, 1);
      document.body.dataset.ms = ((performance.now() - start) / 10).toFixed(1);
    ]])
    assert.same({}, console)
    assert.is_true(data.events > 100000 and data.drawn > 100, data.drawn)
    io.stderr:write(("# %g ms for a picture of %d events\n"):format(data.ms, data.events))
  end)

  it("would be seen to fail", function()
    local data, console = open(timeline.page(text), "noSuchFunction();")
    assert.same(1, #console)
    assert.matches("noSuchFunction is not defined", console[1])
    assert.matches("noSuchFunction is not defined", data.error)
  end)
end)
