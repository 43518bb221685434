-- README.md and docs/: every Lua block is a complete program that runs, every
-- public name is documented, every tag of the sources is explained.
local fences_of = require "blocks"
local files = require "files"

local read, output_of, lines_of = files.read, files.output_of, files.lines_of

local SECONDS = 30

--- What becomes of a block, by what stands behind its fence. A block of any other kind fails.
--   lua     a program: it runs. Its first line may name it, `-- sums.lua`: then it is saved under
--           that name, where the page's later programs find it; else its lines are the page's
--   output  what the program before it prints: compared. A line `...` stands for any lines.
--           `output exit 1`: the program ends with that status, else with 0
--   c       in c-api.md, where c_api_spec.lua compiles and runs it
--   sh      not run: the targets and files that it names must be there
--   text    not run: programs of others, pictures, what depends on the machine
--   `lua nvim`, `lua love`, `nginx`: run by that host's spec, in spec/hosts
local KINDS = {
  lua = true, output = true, c = true, sh = true, text = true,
  ["lua nvim"] = true, ["lua love"] = true, nginx = true,
}

--- The blocks of a page: a list of { line =, kind =, code =, status =, name =, output = }. Unless
-- it has a name, the code has as many empty lines before it as the page has text, so that the line
-- numbers of its errors are the page's. An output is in the block of its program.
local function blocks_of(text)
  local blocks, program = fences_of(text), nil
  for _, block in ipairs(blocks) do
    block.kind = block.info:match("^lua %a+$") or block.info:match("^%S*")
    block.code = table.concat(block, "\n") .. "\n"
    block.name = block.kind == "lua" and (block[1] or ""):match("^%-%- ([%w_]+%.lua)$") or nil
    if block.kind == "output" then
      assert(program and not program.output, ("line %d: no program before it"):format(block.line))
      program.output = block.code
      program.status = tonumber(block.info:match(" exit (%d+)$") or 0)
    elseif block.kind == "lua" and not block.name then
      block.code = ("\n"):rep(block.line) .. block.code
    end
    program = block.kind == "lua" and block or block.kind ~= "output" and program or nil
  end
  return blocks
end

--- Whether `actual` is the text `expected`, whose lines `...` stand for any lines.
local function is_output(actual, expected)
  local function lines_in(text)
    local list = {}
    for line in text:gmatch("([^\n]*)\n") do
      list[#list + 1] = line
    end
    return list
  end
  local given, wanted = lines_in(actual), lines_in(expected)
  local function fits(i, j)
    while wanted[j] do
      if wanted[j] == "..." then
        for skipped = i, #given + 1 do
          if fits(skipped, j + 1) then
            return true
          end
        end
        return false
      elseif given[i] ~= wanted[j] then
        return false
      end
      i, j = i + 1, j + 1
    end
    return i == #given + 1
  end
  return fits(1, 1)
end

--- What a block of shell names and is not there: targets of the Makefile, examples.
local function missing_in(code, makefile)
  local missing = {}
  for line in code:gmatch("[^\n]+") do
    for command in line:gsub("%s#.*", ""):gsub("&&", ";"):gmatch("[^;]+") do
      local words = command:match("^%s*make%s+(.*)")
      for word in (words or ""):gsub("%b\"\"", ""):gmatch("%S+") do
        if not word:find("[=-]") and not ("\n" .. makefile):find("\n[%w %-]*%f[%w]" .. word
          .. "%f[^%w][%w %-]*:") then
          missing[#missing + 1] = "make " .. word
        end
      end
      for path in command:gmatch("%f[%w]examples/[%w_/.]+") do
        local file = io.open(path, "rb")
        if file then
          file:close()
        else
          missing[#missing + 1] = path
        end
      end
    end
  end
  return missing
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

local UNITS = { ns = 1, ["µs"] = 1e3, ms = 1e6, KiB = 1024 }

--- "1.5 µs" in nanoseconds, KiB in bytes.
local function amount(number, unit)
  return tonumber(number) * UNITS[unit]
end

--- The rows of a page that name one of the bench's table, and are more than 30 % off what stands
-- there: samples spread as much, and nobody chooses a tool for less. Of rows of one name the first
-- counts.
local function wrong_figures(page, readme)
  local wrong, n = {}, 0
  for row, number, unit in page:gmatch("\n|[^|\n]*| `([^`\n]+)` | ([%d.]+) ([%aµ]+) |") do
    local measured
    for line in readme:gmatch("[^\n]+") do
      local name, value, its = line:match("^[ +-] (.-)  +([%d.]+) ([%aµ]+)~?%f[^%aµ~]")
      if name == row and UNITS[its] then
        measured = measured or amount(value, its)
      end
    end
    n = n + 1
    if not measured or math.abs(amount(number, unit) / measured - 1) > 0.3 then
      wrong[#wrong + 1] = row
    end
  end
  return wrong, n
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

  local function stem_of(page)
    return page:match("([^/]+)%.md$")
  end

  -- Each page has a folder of its own, for the programs that others of it load.
  local function save(page, block, ending)
    local name = block.name or ("%s_%d.%s"):format(stem_of(page), block.line, ending)
    local home = folder .. "/" .. stem_of(page)
    os.execute("mkdir -p '" .. home .. "'")
    files.write(home .. "/" .. name, block.code)
    return home, name
  end

  local function run(page, block, home, command)
    local output, status = output_of(("cd '%s' && timeout -k 5 %d %s </dev/null"):format(home,
      SECONDS, command))
    assert(status == (block.status or 0), ("%s:%d ended with status %d%s\n%s"):format(page,
      block.line, status, status == 124 and " (no end in time)" or "", output))
    if block.output and not is_output(output, block.output) then
      assert.equal(block.output, output, ("%s:%d prints something else"):format(page, block.line))
    end
  end

  -- The program's result may depend on modules that stand before it on the page.
  local function run_lua(page, block, all)
    for _, other in ipairs(all) do
      if other.name and other.line < block.line then
        save(page, other)
      end
    end
    local home, name = save(page, block, "lua")
    run(page, block, home, ("treadle '%s'"):format(name))
  end

  for _, page in ipairs(pages) do
    local all = blocks_of(read(page))
    for _, block in ipairs(all) do
      if block.kind == "lua" then
        local tag = block.code:find("while true do end", 1, true) and " #computing" or ""
        it(("the program at %s:%d runs%s"):format(page, block.line, tag), function()
          run_lua(page, block, all)
        end)
      end
    end
  end

  it("each block is of a kind that is known", function()
    local unknown = {}
    for _, page in ipairs(pages) do
      for _, block in ipairs(blocks_of(read(page))) do
        if not KINDS[block.kind] or block.kind == "c" and page ~= "docs/c-api.md" then
          unknown[#unknown + 1] = ("%s:%d: '%s'"):format(page, block.line, block.kind)
        end
      end
    end
    assert.same({}, unknown)
  end)

  it("what the shell's lines name is there", function()
    local makefile, missing, n = read("Makefile"), {}, 0
    for _, page in ipairs(pages) do
      for _, block in ipairs(blocks_of(read(page))) do
        for _, what in ipairs(block.kind == "sh" and missing_in(block.code, makefile) or {}) do
          missing[#missing + 1] = ("%s:%d: %s"):format(page, block.line, what)
        end
        n = n + (block.kind == "sh" and 1 or 0)
      end
    end
    assert.is_true(n > 0)
    assert.same({}, missing)
  end)

  it("every name of the module is in a code span of a page", function()
    local names = {}
    for _, page in ipairs(pages) do
      add_names(read(page), names)
    end
    assert.same({}, sorted_missing(require "treadle", names))
  end)

  it("what the tools cost is what the bench has measured", function()
    local wrong, n = wrong_figures(read("docs/which.md"), read("README.md"))
    assert.same({}, wrong)
    assert.is_true(n >= 10)
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
end)

-- A checker that finds nothing must be seen to find something.
describe("the documentation checker", function()
  it("finds blocks and keeps their line numbers", function()
    local blocks = blocks_of("text\n```lua\nreturn 1\n```\n```text\nno\n```\n")
    assert.same({ "lua", "text" }, { blocks[1].kind, blocks[2].kind })
    assert.same({ 2, "\n\nreturn 1\n" }, { blocks[1].line, blocks[1].code })
  end)

  it("takes a program's name from its first line", function()
    local block = blocks_of("text\n```lua\n-- sums.lua\nreturn 1\n```\n")[1]
    assert.same({ "sums.lua", "-- sums.lua\nreturn 1\n" }, { block.name, block.code })
    assert.is_nil(blocks_of("```lua\n-- sums\n```\n")[1].name)
  end)

  it("gives an output to the program before it", function()
    local blocks = blocks_of("```lua\nx\n```\n\n```output exit 1\noh\n```\n```lua\ny\n```\n")
    assert.same({ "oh\n", 1 }, { blocks[1].output, blocks[1].status })
    assert.is_nil(blocks[3].output)
    for _, text in ipairs {
      "```output\n```\n", "```lua\n```\n```output\n```\n```output\n```\n",
    } do
      assert.has_error(function() blocks_of(text) end)
    end
  end)

  it("refuses blocks that it would not see", function()
    assert.has_error(function() blocks_of("1. one\n\n   ```lua\n   return\n   ```\n") end)
    assert.has_error(function() blocks_of("```lua\nreturn\n") end)
    assert.equal("", blocks_of("```\n```\n")[1].kind)
  end)

  it("compares outputs, but for lines that are left out", function()
    assert.is_true(is_output("a\nb\n", "a\nb\n"))
    assert.is_false(is_output("a\nb\n", "a\n"))
    assert.is_false(is_output("a\n", "a\nb\n"))
    assert.is_false(is_output("a\nx\n", "a\nb\n"))
    assert.is_true(is_output("a\nx\ny\nb\n", "a\n...\nb\n"))
    assert.is_true(is_output("a\nb\n", "a\n...\nb\n"))
    assert.is_true(is_output("b\nx\nb\n", "...\nb\n"))
    assert.is_false(is_output("a\nx\n", "a\n...\nb\n"))
    assert.is_false(is_output("a\n", ""))
  end)

  it("finds figures that are not those of the bench", function()
    local readme = "text\n+ a row     339 ns     237 ns\n- other    1.09 ms~    2 ms\n"
    local page = "\n| x | `a row` | 340 ns |\n| x | `other` | 1.1 ms |\n| x | `none` | 1 ms |\n"
    assert.same({ { "none" }, 3 }, { wrong_figures(page, readme) })
    assert.same({ { "a row" }, 1 }, { wrong_figures("\n| x | `a row` | 34 ns |\n", readme) })
    assert.same({ { "other" }, 1 }, { wrong_figures("\n| x | `other` | 2 ms |\n", readme) })
  end)

  it("finds what a shell's line names and is not there", function()
    local makefile = ".PHONY: x\ntest: setup\n\techo\nasan tsan: setup-check\n"
    assert.same({},
      missing_in("make test ONLY=\"a b\"   # make nothing\nmake -j2 tsan\n", makefile))
    assert.same({ "make tests", "examples/none.lua" },
      missing_in("make tests && build/treadle examples/none.lua\n", makefile))
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
