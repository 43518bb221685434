-- The rules of docs/concurrency.md that text can show: each acquire/release
-- pair carries one tag, "[ring-full]", at both of its ends.

local function files(pattern)
  local pipe = assert(io.popen("find src -type f -name '" .. pattern .. "' | sort"))
  local list = {}
  for path in pipe:lines() do list[#list + 1] = path end
  pipe:close()
  return list
end

--- Counts each tag in the comments of `text` into `counts`.
local function count_tags(text, counts)
  for comment in text:gmatch("/%*.-%*/") do
    for tag in comment:gmatch("%[(%l[%l%d]*%-[%l%d%-]+)%]") do
      counts[tag] = (counts[tag] or 0) + 1
    end
  end
end

describe("style:", function()
  it("a memory-order tag stands at both ends of its pair", function()
    local counts, alone = {}, {}
    for _, path in ipairs(files("*.[ch]")) do
      local file = assert(io.open(path, "rb"))
      count_tags(file:read("*a"), counts)
      file:close()
    end
    for tag, count in pairs(counts) do
      if count < 2 then alone[#alone + 1] = tag end
    end
    table.sort(alone)
    assert.same({}, alone)
  end)

  it("counts a tag in a comment and nowhere else", function()
    local counts = {}
    count_tags('/* [ring-full]: pairs below */ x[a-b]; "[not-me]" /* [ring-full] [I2] */', counts)
    assert.same({ ["ring-full"] = 2 }, counts)
  end)
end)
