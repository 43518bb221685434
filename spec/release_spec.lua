--- The version is in one place, src/treadle.h, and what else names it agrees. The rockspec of the
-- version is that of the tree, with a tag.
local files = require "files"
local treadle = require "treadle"

local function read_rockspec(path)
  local found = {}
  setfenv(assert(loadfile(path)), found)()
  return found
end

--- The differences of two values, as paths.
local function differences(a, b, path, list)
  if type(a) ~= "table" or type(b) ~= "table" then
    list[#list + 1] = a ~= b and path or nil
    return list
  end
  local names = {}
  for _, t in ipairs { a, b } do
    for name in pairs(t) do
      names[name] = true
    end
  end
  for name in pairs(names) do
    differences(a[name], b[name], (path and path .. "." or "") .. tostring(name), list)
  end
  table.sort(list)
  return list
end

describe("the version", function()
  local version = files.read("src/treadle.h"):match('#define TREADLE_VERSION "(%d+%.%d+%.%d+)"')

  it("is that of the module and the command", function()
    assert.equal(version, treadle.version)
    assert.matches("treadle " .. version .. " (", files.output_of("treadle --version"), 1, true)
  end)

  it("stands in no other source", function()
    local quoted = version:gsub("%p", "%%%0")
    for _, path in ipairs(files.lines_of("find src lua library -type f | sort")) do
      local _, count = files.read(path):gsub('"' .. quoted .. '"', "")
      assert.equal(path == "src/treadle.h" and 1 or 0, count, path)
    end
  end)

  it("is that of the manual page", function()
    assert.equal(version, files.read("docs/man/treadle.1"):match("\n%.Os treadle (%S+)\n"))
  end)

  it("is the newest in the list of changes", function()
    local first = files.read("CHANGELOG.md"):match("\n## ([^\n]+)")
    assert.equal(version, first:match("^Unreleased: (.*)$") or first:match("^%[?(%d[%d.]*)"))
  end)

  it("has a rockspec, which differs from that of the tree in nothing else", function()
    local paths = files.lines_of("ls rocks/*.rockspec")
    assert.same({ "rocks/treadle-" .. version .. "-1.rockspec", "rocks/treadle-scm-1.rockspec" },
      paths)
    local of_version, of_tree = read_rockspec(paths[1]), read_rockspec(paths[2])
    assert.same({ "source.tag", "version" }, differences(of_tree, of_version, nil, {}))
    assert.equal(version .. "-1", of_version.version)
    assert.equal("v" .. version, of_version.source.tag)
    assert.equal("scm-1", of_tree.version)
  end)
end)

describe("the comparison of rockspecs", function()
  it("finds what is other, missing, or too much", function()
    assert.same({ "a.b", "c", "d" },
      differences({ a = { b = 1, x = 2 }, c = 1 }, { a = { b = 2, x = 2 }, d = { 1 } }, nil, {}))
  end)
end)
