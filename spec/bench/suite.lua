--- Measures `treadle test`: the same generated specs, run by busted alone and by treadle, and that
-- both tell the same of them.
-- usage: build/treadle spec/bench/suite.lua [--files 200] [--ms 50] [--runs 3]
local treadle = require "treadle"

local settings = { files = 200, ms = 50, runs = 3 }
for i = 1, #arg, 2 do
  local name, value = arg[i]:match "^%-%-(%a+)$", tonumber(arg[i + 1])
  if not settings[name] or not value then
    io.stderr:write("usage: treadle spec/bench/suite.lua [--files N] [--ms N] [--runs N]\n")
    os.exit(2)
  end
  settings[name] = value
end

--- Ten tests that compute for `ms` together; every tenth file has one that fails, too.
local SPEC = [[
local function compute(s)
  local stop, x = os.clock() + s, 0
  repeat
    for i = 1, 1000 do x = x + math.sqrt(i) end
  until os.clock() >= stop
  return x
end
describe("file %d", function()
  for i = 1, 10 do
    it("computes " .. i, function() assert.is_true(compute(%g) > 0) end)
  end
  if %d %% 10 == 0 then
    it("fails", function() assert.equal(1, 2) end)
  end
end)
]]

local function output_of(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

local function generate()
  local folder = output_of("mktemp -d"):gsub("%s+$", "")
  assert(os.execute("mkdir " .. folder .. "/spec") == 0)
  for i = 1, settings.files do
    local file = assert(io.open(("%s/spec/file%03d_spec.lua"):format(folder, i), "w"))
    assert(file:write(SPEC:format(i, settings.ms / 1e4, i)))
    file:close()
  end
  return folder
end

--- Seconds, and what was printed without the times in it.
local function measure(folder, command)
  local start = treadle.now()
  local text = output_of(("cd %s && %s -o plainTerminal; true"):format(folder, command))
  return treadle.now() - start, (text:gsub(" : [%d.]+ seconds", ""))
end

local folder = generate()
local alone, parallel = math.huge, math.huge
for _ = 1, settings.runs do
  local seconds, expected = measure(folder, "luajit $(command -v busted) --ignore-lua")
  alone = math.min(alone, seconds)
  local shorter, text = measure(folder, "treadle test")
  parallel = math.min(parallel, shorter)
  assert(text == expected, "treadle test tells something else than busted")
end
os.execute("rm -rf " .. folder)
io.write(([[
%d files of %g ms each, the best of %d runs
busted alone          %7.2f s
treadle test --jobs %d %7.2f s, the same results
                      %7.2f times as fast
]]):format(settings.files, settings.ms, settings.runs, alone, treadle.cores(), parallel,
  alone / parallel))
