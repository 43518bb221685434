--- `make bench BENCH_ARGS="--where --quick"`: the page of stages is measured and printed. Needs the
-- build with stamps, so that `make stamps` runs it, and not `make test`.
package.path = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/?.lua;" .. package.path
local where = require "where"

local LIMIT = 90 -- seconds

describe("the measured page of stages", function()
  local lines, status = {}, nil

  setup(function()
    local pipe = assert(io.popen(("timeout -k 5 %d luajit spec/bench/run.lua --where --quick 2>&1; "
      .. "echo $?"):format(LIMIT)))
    for line in pipe:lines() do lines[#lines + 1] = line end
    pipe:close()
    status = tonumber(table.remove(lines))
  end)

  local function said()
    return table.concat(lines, "\n")
  end

  --- The cells of a way's stages: { who, text, { ns, share, best } for each payload }.
  local function stages_of(way)
    local rows, title = {}, way == "one" and "^one call at a time" or "^1,000 calls in flight"
    local inside = false
    for _, line in ipairs(lines) do
      if line:match("^1,000 calls") or line:match("^one call") then inside = line:match(title) end
      local who, rest = line:match("^(%l+) +(.*)$")
      if inside and (who == "host" or who == "way" or who == "worker") then
        local row = { who = who, text = rest:sub(1, 22):match("^(.-)%s*$"), cells = {} }
        for ns, share, best in rest:sub(23):gmatch("(%S+)%s+(%S+)%s+(%S+)") do
          row.cells[#row.cells + 1] = { ns = ns, share = tonumber(share), best = best }
        end
        rows[#rows + 1] = row
      end
    end
    return rows
  end

  it("ends well", function()
    assert.equal(0, status, said())
  end)

  for _, way in ipairs(where.WAYS) do
    it("has every stage and payload, " .. way, function()
      local rows = stages_of(way)
      assert.equal(#where.STAGES[way], #rows, said())
      for i, stage in ipairs(where.STAGES[way]) do
        assert.same({ stage.who, stage.text }, { rows[i].who, rows[i].text })
        assert.equal(#where.PAYLOADS, #rows[i].cells, said())
        for _, cell in ipairs(rows[i].cells) do
          assert.matches("^%-?%d[%d.µ]*$", cell.ns)
          assert.is_number(cell.share, said())
          assert.matches(stage.best and "^%d" or "^%-$", cell.best)
        end
      end
    end)

    it("has shares that add up, " .. way, function()
      local sums, counts = {}, {}
      for _, row in ipairs(stages_of(way)) do
        for i, cell in ipairs(row.cells) do
          local key = i .. (way == "one" and "" or row.who)
          sums[key] = (sums[key] or 0) + cell.share
          counts[key] = (counts[key] or 0) + 1
        end
      end
      assert.is_not_nil(next(sums))
      for key, sum in pairs(sums) do
        -- each share is rounded to a tenth
        assert.is_true(math.abs(sum - 100) <= 0.05 * counts[key] + 1e-6, key .. "\n" .. said())
      end
    end)
  end

  it("says what the stamps cost", function()
    for _, what in ipairs { "sum of the stages", "by the clock", "with stamps" } do
      assert.matches(what .. ("%s+%d[%d.µ]*"):rep(#where.PAYLOADS), said())
    end
    assert.matches("the stamps cost" .. ("%s+%-?%d[%d.µ]*"):rep(#where.PAYLOADS), said())
  end)
end)
