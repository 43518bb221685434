-- examples/engine: a frame loop in C, compiled with the build's library and run with few frames.
local files = require "files"

local read, output_of = files.read, files.output_of

local SECONDS = 60
local FLAGS = "-std=c11 -O1 -Wall -Wextra -pedantic -Werror"

describe("the frame loop in C", function()
  local folder
  local library = assert(package.searchpath("treadle", package.cpath))

  setup(function()
    folder = output_of("mktemp -d"):gsub("%s+$", "")
    local output, status = output_of(("cc %s -Isrc -o '%s/engine' examples/engine/engine.c '%s' "
      .. "$(pkg-config --cflags --libs luajit) -Wl,-rpath,'%s'"):format(FLAGS, folder, library,
      library:match("^(.*)/")))
    assert(status == 0, output)
  end)

  teardown(function()
    os.execute("rm -rf '" .. folder .. "'")
  end)

  local function run(script, arguments)
    return output_of(("timeout -k 5 %d '%s/engine' '%s' '%s/out.ppm' %s </dev/null"):format(
      SECONDS, folder, script, folder, arguments))
  end

  it("paints all chunks, keeps its budgets, and gets the picture that it makes itself", function()
    local output, status = run("examples/engine/terrain.lua", "5 4 48")
    assert(status == 0, output)
    assert.matches("^20 chunks by %d+ workers, .* that were not kept: 0\n", output)
    assert.matches("\nwith tasks +%d+ frames; .*\ninline +20 frames; ", output)
    assert.matches("240 x 192 pixels: every byte agrees\n$", output)
    local picture = read(folder .. "/out.ppm")
    local head = "P6\n240 192\n255\n"
    assert.same(head, picture:sub(1, #head))
    assert.same(240 * 192 * 3, #picture - #head)
    local colours = {}
    for rgb in picture:sub(#head + 1):gmatch("...") do
      colours[rgb] = true
    end
    local count = 0
    for _ in pairs(colours) do
      count = count + 1
    end
    assert.is_true(count > 100)
  end)

  it("says that the pictures differ", function()
    local path = folder .. "/wrong.lua"
    local file = assert(io.open(path, "wb"))
    file:write((read("examples/engine/terrain.lua"):gsub("terrain.fill%(buffer.ptr, x,",
      "terrain.fill(buffer.ptr, x + 1,")))
    file:close()
    local output, status = run(path, "2 1 32")
    assert.matches("the pictures differ\n$", output)
    assert.same(1, status)
  end)

  it("ends with the error of a task, and of a script that does not compile", function()
    local path = folder .. "/wrong.lua"
    for text, message in pairs {
      ["return { chunk = function() error('no chunk today') end }"] = "no chunk today",
      ["return +"] = "terrain:1: ",
    } do
      local file = assert(io.open(path, "wb"))
      file:write(text)
      file:close()
      local output, status = run(path, "1 1 8")
      assert.matches(message, output, 1, true)
      assert.same(1, status)
    end
  end)
end)
