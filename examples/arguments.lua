--- What the programs say of their arguments. Wrong ones end the program with 2.
local uv = require "luv"

local methods = {}

--- Say what is wrong and how the program is used, and end it.
function methods:fail(message, ...)
  io.stderr:write(self.name, ": ", message:format(...), "\n", self.usage)
  os.exit(2)
end

--- Where the picture goes if nobody says so: into the folder build, if there is one here.
function methods:picture()
  local folder = (uv.fs_stat("build") or {}).type == "directory" and "build/" or ""
  return folder .. self.name .. ".png"
end

--- Whether a word asks for help, which is given.
function methods:help(word)
  if word == "--help" or word == "-h" then
    io.write(self.usage)
    os.exit(0)
  end
end

--- Check that a word is a folder.
function methods:folder(word)
  local stat, message = uv.fs_stat(word)
  if not stat then
    self:fail("cannot open folder '%s' (%s)", word, message)
  elseif stat.type ~= "directory" then
    self:fail("'%s' is not a folder", word)
  end
end

--- Read [OUT.png] [WIDTH HEIGHT [NAME]].
-- @tparam table args
-- @tparam string name of the third number
-- @tparam number default of it
-- @tparam number limit of it
-- @return the picture's path, its width and height, the third number
function methods:drawing(args, name, default, limit)
  for _, word in ipairs(args) do
    self:help(word)
    if word:find("^%-%D") then
      self:fail("unknown option '%s'", word)
    end
  end
  local out = self:picture()
  if args[1] and not tonumber(args[1]) then
    out = table.remove(args, 1)
    if not out:find("%.png$") then
      self:fail("the picture is a PNG, '%s' does not end in .png", out)
    end
  end
  local sizes = { 1280, 960, default }
  local names, limits = { "WIDTH", "HEIGHT", name }, { 10000, 10000, limit }
  for i, word in ipairs(args) do
    sizes[i] = tonumber(word)
    if not names[i] then
      self:fail("one argument too many: '%s'", word)
    elseif not sizes[i] or sizes[i] % 1 ~= 0 or sizes[i] < 1 or sizes[i] > limits[i] then
      self:fail("%s has to be a whole number from 1 to %d, got '%s'", names[i], limits[i], word)
    end
  end
  if #args == 1 then
    self:fail("WIDTH without HEIGHT")
  end
  return out, unpack(sizes)
end

local mt = { __index = methods }

--- @tparam string name of the program
-- @tparam string usage
return function(name, usage)
  return setmetatable({ name = name, usage = usage }, mt)
end
