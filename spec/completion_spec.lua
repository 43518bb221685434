--- completion/: what shells offer behind `treadle` is what the usage texts say.
local files = require "files"
local helpers = require "helpers"
local usage = require "usage"

local quote = helpers.quote

--- The words of a set, sorted.
local function sorted(set)
  local list = {}
  for word in pairs(set) do
    list[#list + 1] = word
  end
  table.sort(list)
  return list
end

--- The options, and the names of commands, that a file for zsh or fish has.
local function words_of_zsh(text)
  local set = {}
  for word in text:gmatch("'(%-[%w%-]*):") do -- what may come first
    set[word] = true
  end
  for names in text:gmatch("{([%w%-,]+)}") do
    for word in names:gmatch("[^,]+") do
      set[word] = true
    end
  end
  for word in text:gsub("'%([^)\n]*%)", "'"):gmatch("'%*?(%-%-?[%w%-]+)%[") do
    set[word] = true
  end
  for word in (text:match("commands=%((.-)\n  %)") or ""):gmatch("'(%l+):") do
    set[word] = true
  end
  return set
end

local function words_of_fish(text)
  local set = {}
  for line in text:gmatch("complete [^\n]+") do
    for flag, word in line:gmatch(" %-([slao]) ([%w%-]+)") do
      set[((flag == "s" or flag == "o") and "-" or flag == "l" and "--" or "") .. word] = true
    end
  end
  return set
end

describe("completion in", function()
  local folder

  setup(function()
    folder = helpers.new_path(".d")
    os.execute(("mkdir -p %s/sub"):format(quote(folder)))
    for _, name in ipairs { "one.lua", "two words.lua", "t.json", "notes.txt", "-odd.lua" } do
      helpers.write(folder .. "/" .. name, "")
    end
  end)

  teardown(helpers.clean)

  --- What bash offers for the last of these words.
  local function offers(...)
    local words = {}
    for i, word in ipairs { "treadle", ... } do
      words[i] = quote(word)
    end
    local script = ("cd %s || exit; COMP_WORDS=(%s); COMP_CWORD=%d; _treadle; "
      .. "((${#COMPREPLY[@]} == 0)) || printf '%%s\\n' \"${COMPREPLY[@]}\""):format(quote(folder),
      table.concat(words, " "), #words - 1)
    local text, status = files.output_of(("bash --norc -c %s"):format(
      quote(". completion/treadle.bash; " .. script)))
    assert.equal(0, status, text)
    local set = {}
    for line in text:gmatch("[^\n]+") do
      assert.is_nil(set[line], line .. " is offered twice")
      set[line] = true
    end
    return sorted(set)
  end

  it("bash is there for the command", function()
    local text = files.output_of("bash --norc -c '. completion/treadle.bash; complete -p treadle'")
    assert.equal("complete -F _treadle treadle\n", text)
  end)

  it("bash offers the options of the command, and of each of its commands", function()
    local real = usage.real()
    assert.same(sorted(real[""]), offers("-"))
    for command, options in pairs(real) do
      if command == "top" then
        assert.same({ "-", "-e" }, offers("top", "-"))
      elseif command ~= "" then
        assert.same(sorted(options), offers(command, "-"))
      end
    end
  end)

  it("bash offers commands and scripts as the first word", function()
    local expected = { "one.lua", "two words.lua", "-odd.lua", "sub" }
    for command, options in pairs(usage.real()) do
      expected[#expected + 1] = command ~= "" and command or nil
      if command == "" then
        for option in pairs(options) do
          expected[#expected + 1] = option
        end
      end
    end
    table.sort(expected)
    assert.same(expected, offers(""))
    assert.same({ "trace" }, offers("tr"))
    assert.same({ "one.lua" }, offers("o"))
    assert.same({ "--version" }, offers("--v"))
    assert.same({ "two words.lua" }, offers("tw"))
  end)

  it("bash offers recordings, scripts, or any file, as it fits", function()
    assert.same({ "sub", "t.json" }, offers("trace", ""))
    assert.same({ "--html" }, offers("trace", "t.json", "--ht"))
    assert.same({ "notes.txt" }, offers("trace", "t.json", "--html", "n"))
    assert.same({ "one.lua" }, offers("top", "o"))
    assert.same({ "notes.txt" }, offers("one.lua", "n"))
    assert.same({ "notes.txt" }, offers("top", "one.lua", "n"))
    assert.same({}, offers("-e", "n"))
    assert.same({}, offers("top", "-e", "n"))
    assert.same({ "notes.txt" }, offers("-e", "print()", "n"))
    assert.same({}, offers("--version", ""))
  end)

  for name, words_of in pairs { ["_treadle"] = words_of_zsh, ["treadle.fish"] = words_of_fish } do
    it(name .. " has the same words, and no others", function()
      local expected = {}
      for command, options in pairs(usage.real()) do
        expected[command ~= "" and command or "-"] = true
        for option in pairs(options) do
          expected[option] = true
        end
      end
      assert.same(sorted(expected), sorted(words_of(files.read("completion/" .. name))))
    end)
  end
end)
