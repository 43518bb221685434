-- docs/c-api.md: every C block is a complete program, which compiles without a warning as C99 and
-- does what its exit status says.
local fences_of = require "blocks"
local files = require "files"

local read, output_of = files.read, files.output_of

local SECONDS = 60
local PAGE = "docs/c-api.md"
local FLAGS = "-std=c99 -D_DEFAULT_SOURCE -Wall -Wextra -pedantic -Werror"

--- The programs of the page, with its line numbers.
local function c_blocks(text)
  local blocks = {}
  for _, block in ipairs(fences_of(text)) do
    if block.info:match("^c%s*$") then
      block.code = ('#line %d "%s"\n'):format(block.line + 1, PAGE)
        .. table.concat(block, "\n") .. "\n"
      blocks[#blocks + 1] = block
    end
  end
  return blocks
end

describe("the C API's page:", function()
  local folder
  local library = assert(package.searchpath("treadle", package.cpath))
  local blocks = c_blocks(read(PAGE))

  setup(function()
    folder = output_of("mktemp -d"):gsub("%s+$", "")
  end)

  teardown(function()
    os.execute("rm -rf '" .. folder .. "'")
  end)

  for _, block in ipairs(blocks) do
    it(("the program at line %d compiles and runs"):format(block.line), function()
      local path = ("%s/block_%d"):format(folder, block.line)
      files.write(path .. ".c", block.code)
      local output, status = output_of(("cc %s -Isrc -o '%s' '%s.c' '%s' $(pkg-config --cflags "
        .. "--libs luajit) -Wl,-rpath,'%s' 2>&1"):format(FLAGS, path, path, library,
        library:match("^(.*)/")))
      assert(status == 0, output)
      output, status = output_of(("timeout -k 5 %d '%s' </dev/null 2>&1"):format(SECONDS, path))
      assert(status == 0, ("ended with status %d\n%s"):format(status, output))
    end)
  end

  it("has programs, and the first one says what it has got", function()
    assert.is_true(#blocks >= 6)
    assert.same("ababab\n", output_of(("'%s/block_%d'"):format(folder, blocks[1].line)))
  end)
end)
