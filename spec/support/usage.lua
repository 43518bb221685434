--- What the command says of itself: its commands, and the options of each.
local files = require "files"

local usage = {}

--- The options in a text: "-e", "--html", "-"; "--[no-]html" is two.
local function add_options(text, set)
  text = text:gsub("%-%-%[no%-%]([%w%-]+)", "--%1 --no-%1")
  for before, option in (" " .. text):gmatch("([%s|%[,])(%-%-?[%w%-]*)") do
    if before ~= "" and (option == "-" or option:match("%w$")) then
      set[option] = true
    end
  end
end

--- Options by command, "" for the command without one: `{ [""] = { ["-e"] = true, ... }, trace =
-- ... }`. What tells more of a command is that command's own text, which "--help" asks for.
-- @param text what `treadle --help` prints
-- @param help a function: command -> what its `--help` prints
function usage.read(text, help)
  local found = { [""] = {} }
  for line in text:gmatch("[^\n]+") do
    local form = assert(line:match("treadle (.-)%f[%z ]  "), line) -- two spaces, and what it does
    local command = form:match("^%l+")
    local set = found[command or ""] or {}
    found[command or ""] = set
    if line:find("%(treadle %l+ %-%-help%)") then
      for own in help(command):gmatch("[^\n]+") do
        add_options(own:match("treadle " .. command .. "(.*)") or own, set)
      end
      set["--help"] = true
    else
      add_options(form, set)
    end
  end
  return found
end

--- The same of the command that is there.
function usage.real()
  local function output_of(arguments)
    local text = files.output_of("treadle " .. arguments) -- busted's exit code for it is 1
    assert(text:find("[Uu]sage: "), text)
    return text
  end
  return usage.read(output_of "--help", function(command)
    return output_of(command .. " --help")
  end)
end

return usage
