--- docs/man/treadle.1: its commands and options are those of the usage texts, and no others.
local files = require "files"
local usage = require "usage"

--- Options by command, as `usage.read` has them, of a page in mdoc. Those of a command stand below
-- its ".Ss treadle COMMAND", those without one below DESCRIPTION.
local function read_page(text)
  local found, set = { [""] = {} }, nil
  for line in text:gmatch("[^\n]+") do
    local command = line:match("^%.Ss treadle (%l+)")
    if command then
      set = {}
      found[command] = set
    elseif line:match("^%.Sh ") then
      set = line == ".Sh DESCRIPTION" and found[""] or nil
    elseif set and line:match("^%.It Fl") then
      local words = line:match("^%.It Fl%s*(.*)")
      local before = words:match("^(.-)%s*%f[%u]%u%l ") or words -- then come arguments: Ar, Op
      if before == "" then
        set["-"] = true
      end
      for word in before:gmatch("[^%s,]+") do
        set["-" .. word] = true
      end
    end
  end
  return found
end

describe("the manual page", function()
  local text = files.read("docs/man/treadle.1")

  it("has the commands of the usage text, and the options of each", function()
    local real = usage.real()
    assert.is_true(real[""]["-e"] and real.trace["--svg"])
    assert.same(real, read_page(text))
  end)

  it("names each command in its synopsis", function()
    local synopsis = text:match("%.Sh SYNOPSIS\n(.-)%.Sh ")
    for command in pairs(usage.real()) do
      assert.is_true(command == "" or synopsis:find(".Cm " .. command .. "\n", 1, true) ~= nil,
        command)
    end
  end)

  it("has no line that makes troff stumble", function()
    local number = 0
    for line in text:gmatch("(.-)\n") do
      number = number + 1
      assert.is_true(line ~= "" and not line:find("%s$") and not line:find("\t"), number)
    end
    assert.equal("\n", text:sub(-1))
  end)
end)

-- A checker that finds nothing must be seen to find something.
describe("the checker of the manual", function()
  it("reads a usage text", function()
    local help = function(command)
      return "usage: treadle " .. command
        .. " FILE   do it\n  -o, --output=NAME   where\n  --[no-]x  y\n"
    end
    assert.same({
      [""] = { ["-e"] = true, ["-"] = true, ["-v"] = true, ["--version"] = true },
      top = {},
      make = { ["-o"] = true, ["--output"] = true, ["--help"] = true, ["--x"] = true,
        ["--no-x"] = true },
    }, usage.read([[
usage: treadle SCRIPT [ARGUMENT...]   run it
       treadle -e CODE                run CODE
       treadle - [ARGUMENT...]        run what comes - from anywhere
       treadle top SCRIPT ...         the same
       treadle make FILE              make (treadle make --help)
       treadle -v | --version         versions
]], help))
  end)

  it("reads a page", function()
    assert.same({
      [""] = { ["-e"] = true, ["-"] = true, ["-v"] = true, ["--version"] = true },
      make = { ["--html"] = true, ["-o"] = true },
    }, read_page([[
.Sh SYNOPSIS
.It Fl x
.Sh DESCRIPTION
.It Fl e Ar code
.It Fl
.It Fl v , -version
.Sh COMMANDS
.Ss treadle make Ar file
.It Fl -html Op Ar out
.It Fl o Ar name
.Sh ENVIRONMENT
.It Fl y
]]))
  end)
end)
