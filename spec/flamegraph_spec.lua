-- docs/pictures/flamegraph.lua: folded stacks as an SVG.
require "path"
local helpers = require "helpers"
local flamegraph = dofile "docs/pictures/flamegraph.lua"

local WIDTH, MARGIN = 1000, 10

--- The elements of an XML text in their order: `{ name =, depth =, inside =, text =, ... }` with
-- their attributes; fails where it is not well-formed.
local function parse(xml)
  local list, open, at = {}, {}, 1
  local function check_text(text)
    assert(not text:find "[%z\1-\8\11-\31\127<]", "a character that XML does not know")
    for entity in text:gmatch "&([^;]*;?)" do
      assert(entity:match "^[lg]t;$" or entity == "amp;" or entity == "quot;", "&" .. entity)
    end
    return text
  end
  while at <= #xml do
    local text, after = xml:match("^([^<]+)()", at)
    if text then
      local parent = open[#open]
      assert(parent or not text:find "%S", "text outside of the root")
      if parent then
        parent.text = (parent.text or "") .. check_text(text)
      end
      at = after
    else
      local slash, name, attributes, ends
      slash, name, attributes, ends, after = xml:match("^<(/?)([%a:]+)(.-)(/?)>()", at)
      assert(name, "a broken tag at " .. xml:sub(at, at + 40))
      if slash == "/" then
        assert(#open > 0 and open[#open].name == name, "</" .. name .. "> closes nothing")
        open[#open] = nil
      else
        local element = { name = name, depth = #open, inside = open[#open] }
        local rest = attributes:gsub('%s+([%a-]+)="([^"]*)"', function(key, value)
          assert(element[key] == nil, "twice: " .. key)
          element[key] = check_text(value)
          return ""
        end)
        assert(not rest:find "%S", "not understood: " .. rest)
        assert(#open > 0 or #list == 0, "two roots")
        list[#list + 1] = element
        if ends ~= "/" then
          open[#open + 1] = element
        end
      end
      at = after
    end
  end
  assert(#open == 0, "something is not closed")
  return list
end

--- The frames of a picture: { name =, x =, y =, width =, label =, count = }, by their titles.
local function frames_of(svg)
  local list, by_name, frame = {}, {}, nil
  for _, element in ipairs(parse(svg)) do
    if element.name == "g" then
      frame = {}
      list[#list + 1] = frame
    elseif element.inside and element.inside.name == "g" then
      if element.name == "title" then
        frame.title = element.text
        frame.name, frame.count = element.text:match "^(.*): ([%d.]+) samples?, [%d.]+ %%"
        frame.count = tonumber(frame.count)
        by_name[frame.name] = frame
      elseif element.name == "rect" then
        frame.x, frame.y = tonumber(element.x), tonumber(element.y)
        frame.width, frame.height = tonumber(element.width), tonumber(element.height)
        frame.class = element.class
      elseif element.name == "text" then
        frame.label, frame.label_x = element.text, tonumber(element.x)
      end
    end
  end
  return list, by_name
end

local function draw(folded, given)
  return flamegraph.draw(assert(flamegraph.read(folded)), given)
end

local SAMPLE = [[
w;main f.lua:1;read f.lua:9 30
w;main f.lua:1;[C] 20
w;main f.lua:1 50
v;main f.lua:1;read f.lua:9;[C] 99
v 1
]]

--- Stacks by chance, with a seed.
local function random_stacks(seed)
  local state = seed
  local function roll(n)
    state = (state * 1103515245 + 12345) % 2 ^ 31
    return math.floor(state / 2 ^ 16) % n
  end
  local lines, total = {}, 0
  for i = 1, 200 do
    local names = {}
    for depth = 1, roll(12) + 1 do
      names[depth] = ("f%d (m.lua:%d)"):format(roll(4), depth)
    end
    local count = roll(1000) + 1
    lines[i] = table.concat(names, ";") .. " " .. count
    total = total + count
  end
  return table.concat(lines, "\n"), total
end

describe("a flame graph", function()
  teardown(helpers.clean)

  it("has a frame for each function of each stack, as wide as its share", function()
    local list, frames = frames_of(draw(SAMPLE))
    assert.equal(9, #list)
    local whole = WIDTH - 2 * MARGIN
    assert.near(whole, frames.all.width, 0.01)
    assert.near(whole / 2, frames.w.width, 0.01)
    assert.equal(200, frames.all.count)
    assert.equal("v: 100 samples, 50 %; 1 in itself", frames.v.title)
    assert.equal("all: 200 samples, 100 %", frames.all.title)
  end)

  it("has frames that lie inside their callers, beside each other, the heaviest first", function()
    for seed = 1, 20 do
      local folded, total = random_stacks(seed)
      local list = frames_of(draw(folded))
      local rows, lowest = {}, list[1]
      assert.equal(total, lowest.count)
      for _, frame in ipairs(list) do
        rows[frame.y] = rows[frame.y] or {}
        table.insert(rows[frame.y], frame)
      end
      local checked = 0
      for y, row in pairs(rows) do
        table.sort(row, function(a, b) return a.x < b.x end)
        local above = {}
        for i, frame in ipairs(row) do
          assert.is_true(frame.width > 0)
          local next_one = row[i + 1]
          if next_one then
            assert.is_true(frame.x + frame.width <= next_one.x + 0.02)
          end
          local caller
          for _, lower in ipairs(rows[y + 20] or {}) do
            if frame.x >= lower.x - 0.02 and frame.x + frame.width <= lower.x + lower.width + 0.02
            then
              caller = lower
            end
          end
          if y < lowest.y then
            assert.is_truthy(caller, "nobody is below " .. frame.title)
            above[caller] = above[caller] or {}
            table.insert(above[caller], frame)
          end
        end
        for caller, callees in pairs(above) do
          local sum = 0
          for i, frame in ipairs(callees) do
            sum = sum + frame.count
            assert.is_true(i == 1 or callees[i - 1].count >= frame.count)
          end
          local own = tonumber(caller.title:match "; ([%d.]+) in itself") or 0
          local left_out = caller.count - own - sum -- too narrow to be drawn
          assert.is_true(left_out >= 0 and left_out * (WIDTH - 2 * MARGIN) / total
            < 0.1 * 4, caller.title)
          assert.near(caller.x, callees[1].x, 0.02)
          checked = checked + 1
        end
      end
      assert.is_true(checked > 20)
    end
  end)

  it("has labels that end inside their frames", function()
    local names = { "short f:1", ("long_"):rep(60) .. ":1", ("größe"):rep(40) .. ":1" }
    local labels, cut = 0, 0
    for width = 100, 1400, 100 do
      for count = 1, 40, 3 do
        local folded = {}
        for i, name in ipairs(names) do
          folded[i] = name .. " " .. count * i
        end
        folded[#folded + 1] = "other f:1 200"
        for _, frame in ipairs(frames_of(draw(table.concat(folded, "\n"), { width = width }))) do
          if frame.label then
            local letters = select(2, frame.label:gsub("[^\128-\191]", ""))
            assert.is_true(frame.label_x + letters * 7.2 <= frame.x + frame.width,
              frame.title .. " is labelled " .. frame.label)
            labels = labels + 1
            cut = cut + (frame.label:find("…", 1, true) and 1 or 0)
          end
        end
      end
    end
    assert.is_true(labels > 100 and cut > 50)
  end)

  it("is well-formed, whatever the names are", function()
    local every = {}
    for byte = 0, 255 do
      if byte ~= 10 and byte ~= 13 then
        every[#every + 1] = string.char(byte)
      end
    end
    local name = table.concat(every):gsub(";", "")
    for _, one in ipairs { name, '<&">\'', "é漢\240\159\152\128", "\237\160\128", "\239\191\191",
      "\192\128", "\244\144\128\128", "]]>", "--" } do
      local list = frames_of(draw(one .. " 10\n" .. one .. ";" .. one .. " 1",
        { title = one }))
      assert.equal(3, #list)
    end
    local _, frames = frames_of(draw("a<b 1"))
    assert.equal("a&lt;b: 1 sample, 100 %; 1 in itself", frames["a&lt;b"].title)
    _, frames = frames_of(draw("é漢\240\159\152\128\237\160\128 1"))
    assert.is_truthy(frames["é漢\240\159\152\128???"])
  end)

  it("needs no script and nothing from elsewhere", function()
    local svg = draw(SAMPLE)
    assert.is_nil(svg:find("<script", 1, true))
    assert.is_nil(svg:find("href", 1, true))
    assert.is_nil(svg:find("url(", 1, true))
    assert.is_truthy(svg:find("prefers-color-scheme:dark", 1, true))
  end)

  it("gives a function its colour in each picture, and grey to what is none of Lua's", function()
    local _, a = frames_of(draw "main f.lua:1;[C] 3")
    local _, b = frames_of(draw "other f.lua:9;main f.lua:1 3\nx 9")
    assert.equal(a["main f.lua:1"].class, b["main f.lua:1"].class)
    assert.same({ "g", "g", "g" }, { a["[C]"].class, a.all.class, b.x.class })
    local svg = draw(SAMPLE)
    for class in svg:gmatch 'class="(%w+)"' do
      assert.is_truthy(svg:find("." .. class .. "{", 1, true), class)
    end
  end)

  it("is told what is no stack", function()
    assert.same({ nil, "there are no stacks" }, { flamegraph.read "" })
    assert.same({ nil, "there are no stacks" }, { flamegraph.read " \n\n" })
    assert.same({ nil, "line 2 is no stack and count: b" }, { flamegraph.read "a 1\nb\n" })
    assert.equal(3.5, flamegraph.read("a;b 1.5\r\na 2\r\n").total)
  end)

  it("is drawn by a command, with a title and a width", function()
    local program = helpers.quote(require("lfs").currentdir() .. "/docs/pictures/flamegraph.lua")
    local run = "luajit " .. program
    local out, err, code = helpers.shell(run .. " --title 'A & B' --width 500", SAMPLE)
    assert.same({ "", 0 }, { err, code })
    assert.equal("500", parse(out)[1].width)
    assert.matches(">A &amp; B</text>", out, 1, true)
    out, err, code = helpers.shell(run, "nonsense\n")
    assert.same({ "", "flamegraph: line 1 is no stack and count: nonsense\n", 1 },
      { out, err, code })
    for _, arguments in ipairs { "--title", "--width 5", "file" } do
      out, err, code = helpers.shell(run .. " " .. arguments, SAMPLE)
      assert.same({ "", 2 }, { out, code })
      assert.matches("usage: lua flamegraph.lua", err, 1, true)
    end
  end)

  it("of the documentation is one", function()
    local list = frames_of(helpers.read "docs/pictures/flame.svg")
    assert.is_true(#list > 5)
  end)
end)
