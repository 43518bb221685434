-- The rules of docs/concurrency.md that text can show: each acquire/release
-- pair carries one tag, "[ring-full]", at both of its ends; a step of a model,
-- "<ring.P1>", is named in the sources and stands in spec/model/ring.pml.

local files = require "files"

--- Counts each tag in the comments of `text` into `counts`.
local function count_tags(text, counts)
  for comment in text:gmatch("/%*.-%*/") do
    for tag in comment:gmatch("%[(%l[%l%d]*%-[%l%d%-]+)%]") do
      counts[tag] = (counts[tag] or 0) + 1
    end
  end
end

--- Adds the steps that the comments of `text` name. In a model a step stands at the head of a
-- comment of its own, beside the statement.
local function add_steps(text, steps, in_model)
  for comment in text:gmatch("/%*.-%*/") do
    if in_model then
      comment = comment:match("^/%* <%l+%.%u%d+>") or ""
    end
    for step in comment:gmatch("<(%l+%.%u%d+)>") do
      steps[step] = true
    end
  end
end

--- The steps of `some` that `others` lack.
local function missing(some, others)
  local list = {}
  for step in pairs(some) do
    if not others[step] then list[#list + 1] = step end
  end
  table.sort(list)
  return list
end

describe("style:", function()
  it("a memory-order tag stands at both ends of its pair", function()
    local counts, alone = {}, {}
    for _, path in ipairs(files.sources("*.[ch]")) do
      count_tags(files.read(path), counts)
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

  it("each step that the sources name stands in its model, and no other", function()
    local sources, models = {}, {}
    for _, path in ipairs(files.sources("*.[ch]")) do
      add_steps(files.read(path), sources)
    end
    for _, path in ipairs(files.lines_of("ls spec/model/*.pml")) do
      local steps, name = {}, path:match("([^/]+)%.pml$")
      add_steps(files.read(path), steps, true)
      for step in pairs(steps) do
        assert.same(name, step:match("^%l+"))
        models[step] = true
      end
    end
    assert.is_true(sources["ring.P1"])
    assert.same({}, missing(sources, models))
    assert.same({}, missing(models, sources))
  end)

  it("finds steps in comments, in a model only where they are taken", function()
    local sources, models = {}, {}
    add_steps("/* so: <ring.P1> and\n** <ring.P2> */ x <ring.P3> y; /* <stdio.h> */", sources)
    add_steps("/* Steps: <ring.P1> */ x; /* <ring.P2> as above */", models, true)
    assert.same({ ["ring.P1"] = true, ["ring.P2"] = true }, sources)
    assert.same({ ["ring.P2"] = true }, models)
    assert.same({ "ring.P1" }, missing(sources, models))
  end)
end)
