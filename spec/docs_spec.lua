-- README.md and docs/: every Lua block is a complete program that runs, every
-- public name is documented, every tag of the sources is explained.
local files = require "files"

local read, output_of, lines_of = files.read, files.output_of, files.lines_of

local SECONDS = 30

--- The ```lua blocks of a page: a list of { line =, code = }. The code has as
-- many empty lines before it as the page has text, so that the line numbers of
-- its errors are the page's.
local function lua_blocks(text)
  local blocks, block, number = {}, nil, 0
  for line in (text .. "\n"):gmatch("(.-)\r?\n") do
    number = number + 1
    if block then
      if line:match("^```") then
        block.code = ("\n"):rep(block.line) .. table.concat(block, "\n") .. "\n"
        blocks[#blocks + 1] = block
        block = nil
      else
        block[#block + 1] = line
      end
    elseif line:match("^```lua%s*$") then
      block = { line = number }
    end
  end
  assert(not block, "a block is not closed")
  return blocks
end

--- Adds the tags in the C comments of `text`: "[park]", but not "heap[i]".
local function add_tags(text, tags)
  for comment in text:gmatch("/%*.-%*/") do
    for before, tag in comment:gmatch("(.)(%[[a-z]+%-?[a-z]*%])") do
      if not before:match("[%w_%)%]\"]") and #tag > 3 then
        tags[tag] = true
      end
    end
  end
end

--- Adds the names in code spans: "`treadle.sleep(s)`" gives "sleep".
local function add_names(text, names)
  for span in text:gmatch("`([^`\n]+)`") do
    for name in span:gmatch("treadle%.([%a_][%w_]*)") do
      names[name] = true
    end
  end
end

local function sorted_missing(wanted, present)
  local missing = {}
  for name in pairs(wanted) do
    if not present[name] then
      missing[#missing + 1] = name
    end
  end
  table.sort(missing)
  return missing
end

local pages = lines_of("ls README.md docs/*.md")

describe("the documentation:", function()
  local folder

  setup(function()
    folder = output_of("mktemp -d"):gsub("%s+$", "")
  end)

  teardown(function()
    os.execute("rm -rf '" .. folder .. "'")
  end)

  local function run_block(page, block)
    local path = ("%s/%s_%d.lua"):format(folder, page:match("([^/]+)%.md$"), block.line)
    local file = assert(io.open(path, "wb"))
    assert(file:write(block.code))
    assert(file:close())
    local output, status = output_of(("cd '%s' && timeout -k 5 %d treadle '%s' </dev/null"):format(
      folder, SECONDS, path))
    assert(status == 0, ("%s:%d ended with status %d%s\n%s"):format(page, block.line, status,
      status == 124 and " (no end in time)" or "", output))
  end

  for _, page in ipairs(pages) do
    for _, block in ipairs(lua_blocks(read(page))) do
      local tag = block.code:find("while true do end", 1, true) and " #computing" or ""
      it(("the program at %s:%d runs%s"):format(page, block.line, tag), function()
        run_block(page, block)
      end)
    end
  end

  it("every name of the module is in a code span of a page", function()
    local names = {}
    for _, page in ipairs(pages) do
      add_names(read(page), names)
    end
    assert.same({}, sorted_missing(require "treadle", names))
  end)

  it("every function of treadle.h is in docs/c-api.md", function()
    local functions, page = {}, read("docs/c-api.md")
    for name in read("src/treadle.h"):gmatch("(treadle_[%w_]+)%(") do
      functions[name] = true
    end
    assert.is_true(next(functions) ~= nil)
    local present = {}
    for name in page:gmatch("treadle_[%w_]+") do
      present[name] = true
    end
    assert.same({}, sorted_missing(functions, present))
  end)

  it("every tag in src/ is in docs/concurrency.md, and no other", function()
    local tags, present = {}, {}
    for _, path in ipairs(files.sources("*.[ch]")) do
      add_tags(read(path), tags)
    end
    for tag in read("docs/concurrency.md"):gmatch("`(%[[a-z]+%-?[a-z]*%])`") do
      present[tag] = true
    end
    assert.is_true(tags["[park]"])
    assert.same({}, sorted_missing(tags, present))
    assert.same({}, sorted_missing(present, tags))
  end)

  it("every source file is in docs/architecture.md", function()
    local page, missing = read("docs/architecture.md"), {}
    for _, path in ipairs(lines_of("find src lua -type f | sort")) do
      local stem = path:match("([^/]+)%.%a+$")
      if not page:find("%f[%w_]" .. stem .. "%f[^%w_]") then
        missing[#missing + 1] = path
      end
    end
    assert.same({}, missing)
  end)

  it("every link between pages leads to a file", function()
    local broken = {}
    for _, page in ipairs(pages) do
      local base = page:match("^(.*/)") or ""
      for target in read(page):gsub("```.-\n```", ""):gmatch("%]%(([^)#%s]+)") do
        if not target:match("^%a+:") then
          local file = io.open(base .. target, "rb")
          if file then
            file:close()
          else
            broken[#broken + 1] = page .. " -> " .. target
          end
        end
      end
    end
    assert.same({}, broken)
  end)
end)

-- A checker that finds nothing must be seen to find something.
describe("the documentation checker", function()
  it("finds Lua blocks and keeps their line numbers", function()
    local blocks = lua_blocks("text\n```lua\nreturn 1\n```\n```text\nno\n```\n")
    assert.same(1, #blocks)
    assert.same({ 2, "\n\nreturn 1\n" }, { blocks[1].line, blocks[1].code })
  end)

  it("finds tags in comments, and no subscripts", function()
    local tags = {}
    add_tags("/* [ring-turn] and heap[i], futures[slot] [I1] */ x = [park];\n/* [park] */", tags)
    assert.same({ ["[ring-turn]"] = true, ["[park]"] = true }, tags)
  end)

  it("finds names in code spans only", function()
    local names = {}
    add_names("treadle.no `treadle.yes(x)` `x = treadle.all { f }`", names)
    assert.same({ yes = true, all = true }, names)
  end)

  it("tells what is missing", function()
    assert.same({ "a", "c" }, sorted_missing({ a = 1, b = 1, c = 1 }, { b = true }))
  end)
end)
