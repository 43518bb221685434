--- The links of README.md, CHANGELOG.md and docs/: the files exist, and in pages the headings.
local files = require "files"
local lfs = require "lfs"

local pages = files.lines_of("ls *.md docs/*.md")

--- A page without its blocks of code.
local function text_of(page)
  return (("\n" .. page):gsub("\n```[^\n]*\n.-\n```", "\n"))
end

--- The anchor of a heading, as the pages' viewers make it: letters, digits, "-" and "_" stay, a
-- blank becomes "-".
local function anchor_of(heading)
  heading = heading:gsub("%[([^%]]*)%]%([^)]*%)", "%1"):lower()
  return (heading:gsub("[^%w_%- \128-\255]", ""):gsub(" ", "-"))
end

local function anchors_of(page)
  local set, counts = {}, {}
  for heading in text_of(page):gmatch("\n#+ ([^\n]+)") do
    local anchor = anchor_of(heading)
    local count = counts[anchor]
    counts[anchor] = (count or 0) + 1
    set[count and anchor .. "-" .. count or anchor] = true
  end
  return set
end

--- The links of a page that lead to files, as written: a list of { file, anchor }.
local function links_of(page)
  local list = {}
  local text = text_of(page):gsub("`[^`\n]*`", "")
  for target in text:gmatch("%]%(([^)%s]+)%)") do
    if not target:match("^%a[%w+.-]*:") then
      local file, anchor = target:match("^([^#]*)#?(.*)$")
      list[#list + 1] = { file, anchor ~= "" and anchor or nil }
    end
  end
  return list
end

--- What is wrong with a link from a page.
local function problem_of(path, link)
  local file, anchor = link[1], link[2]
  local target = file == "" and path or (path:match("^(.*/)") or "") .. file
  if not lfs.attributes(target) then
    return "there is no " .. target
  elseif anchor and not target:match("%.md$") then
    return "anchors of pages alone can be seen: " .. target
  elseif anchor and not anchors_of(files.read(target))[anchor] then
    return ("%s has no #%s"):format(target, anchor)
  end
end

describe("every link leads somewhere:", function()
  for _, path in ipairs(pages) do
    it(path, function()
      local problems = {}
      for _, link in ipairs(links_of(files.read(path))) do
        problems[#problems + 1] = problem_of(path, link)
      end
      assert.same({}, problems)
    end)
  end

  it("every page is reached from docs/index.md or README.md", function()
    local reached = { ["README.md"] = true, ["docs/index.md"] = true }
    for _, path in ipairs { "README.md", "docs/index.md" } do
      for _, link in ipairs(links_of(files.read(path))) do
        reached[(path:match("^(.*/)") or "") .. link[1]] = true
      end
    end
    local missing = {}
    for _, path in ipairs(pages) do
      missing[#missing + 1] = not reached[path] and path or nil
    end
    assert.same({}, missing)
  end)
end)

-- A checker that finds nothing must be seen to find something.
describe("the checker of links", function()
  it("makes the anchors of headings", function()
    assert.equal("poolonevent-fn", anchor_of("`pool:on(event, fn)`"))
    assert.equal("treadlepooltasks--options", anchor_of("`treadle.pool(tasks [, options])`"))
    assert.equal("see-here-now", anchor_of("See [here](x.md) now"))
    assert.equal("luvs-threads-and-new_work", anchor_of("luv's threads and `new_work`"))
    assert.same({ one = true, ["one-1"] = true, two = true },
      anchors_of("# One\n\n## One\n```text\n# no\n```\n### Two\n"))
  end)

  it("finds links, but not in code", function()
    assert.same({ { "a.md" }, { "b.md", "x" }, { "", "y" } }, links_of(
      "[a](a.md) [b](b.md#x) `[c](c.md)` [d](#y) [e](https://example.org)\n```lua\n[f](f.md)\n```"))
  end)

  it("finds what is wrong", function()
    assert.is_nil(problem_of("docs/pool.md", { "task.md" }))
    assert.equal("there is no docs/none.md", problem_of("docs/pool.md", { "none.md" }))
    assert.equal("README.md has no #none", problem_of("docs/pool.md", { "../README.md", "none" })
      :gsub("docs/%.%./", ""))
  end)
end)
