--- treadle in LÖVE: real games, on a display that nobody looks at.
local bit = require "bit"
local ffi = require "ffi"
local helpers = require "helpers"

local EXAMPLE = helpers.folder .. "/../../examples/love"

local CONF = [[
function love.conf(t)
  t.window.width, t.window.height, t.window.vsync = 64, 64, 0
  t.modules.audio, t.modules.sound, t.modules.joystick = false, false, false
end
]]

local TASKS = [[
local tasks = {}
function tasks.add(a, b) return a + b end
function tasks.endless() while true do end end
function tasks.part() return require("parts.deep").name end
function tasks.leave()
  local file = assert(io.open(require("treadle").worker.data, "wb"))
  file:write "left"
  file:close()
end
return tasks
]]

-- What a game's main.lua begins with: `say`, and an end by errors that nobody has to click away.
local HEAD = [[
io.stdout:setvbuf "line"
local function say(...)
  local words = {}
  for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
  io.stdout:write("say ", table.concat(words, " "), "\n")
end
if love then -- a worker may run this file, too
  function love.errorhandler(message)
    say("error", (tostring(message):match "[^\n]*"))
    return function() return 7 end
  end
end
]]

local function crc32(text)
  local crc = -1
  for i = 1, #text do
    crc = bit.bxor(crc, text:byte(i))
    for _ = 1, 8 do
      crc = bit.bxor(bit.rshift(crc, 1), bit.band(crc, 1) == 1 and 0xedb88320 or 0)
    end
  end
  return bit.bnot(crc)
end

--- A zip archive of files that are not packed.
local function zip(files)
  local function number(value, bytes)
    local text = {}
    for i = 1, bytes do
      text[i] = string.char(bit.band(bit.rshift(value, 8 * (i - 1)), 255))
    end
    return table.concat(text)
  end
  local body, list, count, offset = {}, {}, 0, 0
  for name, text in pairs(files) do
    local what = number(20, 2) .. number(0, 8) .. number(crc32(text), 4)
      .. number(#text, 4) .. number(#text, 4) .. number(#name, 2) .. number(0, 2)
    local entry = "PK\3\4" .. what .. name .. text
    list[#list + 1] = "PK\1\2" .. number(20, 2) .. what .. number(0, 2) .. number(0, 2)
      .. number(0, 2) .. number(0, 4) .. number(offset, 4) .. name
    body[#body + 1] = entry
    count, offset = count + 1, offset + #entry
  end
  local directory = table.concat(list)
  return table.concat(body) .. directory .. "PK\5\6" .. number(0, 4) .. number(count, 2)
    .. number(count, 2) .. number(#directory, 4) .. number(offset, 4) .. number(0, 2)
end

describe("LÖVE", function()
  local home, display, server

  setup(function()
    for _, name in ipairs { "love", "Xvfb" } do
      assert(select(3, helpers.shell("command -v " .. name)) == 0,
        ("no %s here: make setup-check installs it"):format(name))
    end
    home = helpers.new_path ".home"
    local pipe = helpers.new_path ".pipe"
    os.execute(("mkdir -p %s && mkfifo %s"):format(home, pipe))
    -- it says its display's number when one can connect to it
    local out = helpers.shell(([[
      timeout 170 Xvfb -displayfd 3 -screen 0 640x640x24 -nolisten tcp 3>%s >/dev/null 2>&1 &
      echo $!
      head -n 1 %s
    ]]):format(pipe, pipe))
    server, display = out:match "(%d+)%s+(%d+)"
    assert(display, "Xvfb does not start: " .. out)
  end)

  teardown(function()
    if server then
      os.execute("kill " .. server)
    end
    helpers.clean()
  end)

  --- Run a game.
  -- @return what it said, what it wrote on standard error, its exit code, what it wrote in all
  local function love(path, arguments, before)
    local out, err, code = helpers.shell(("%s exec env HOME=%s XDG_DATA_HOME=%s DISPLAY=:%s "
      .. "LIBGL_ALWAYS_SOFTWARE=1 SDL_AUDIODRIVER=dummy love %s %s"):format(before or "", home,
      home, display, path, arguments or ""))
    local said = {}
    for line in out:gmatch "say ([^\n]*)" do
      said[#said + 1] = line
    end
    return said, err, code, out
  end

  local function files_of(main)
    return {
      ["conf.lua"] = CONF, ["game_tasks.lua"] = TASKS, ["main.lua"] = HEAD .. main,
      ["parts/deep.lua"] = "return { name = ... }",
    }
  end

  local function folder_of(files)
    local folder = helpers.new_path ".game"
    for name, text in pairs(files) do
      os.execute("mkdir -p " .. folder .. "/" .. (name:match "^(.*)/" or ""))
      helpers.write(folder .. "/" .. name, text)
    end
    return folder
  end

  --- Run a game made of this main.lua; it must end well.
  local function says(wanted, main, code_wanted)
    local said, err, code = love(folder_of(files_of(main)))
    assert.same(wanted, said, err)
    assert.equal(code_wanted or 0, code, err)
    return err
  end

  it("is attached to by itself: waits while it loads, coroutines go on with the frames", function()
    says({ "main 3", "load 7", "frames", "sum 11", "quit" }, [[
      local treadle = require "treadle"
      local pool = treadle.pool("game_tasks")
      say("main", pool.call.add(1, 2):await())
      local frame = 0
      function love.load()
        say("load", pool.call.add(3, 4):await())
        treadle.spawn(function()
          local before = frame
          local sum = pool.call.add(5, 6):await()
          treadle.sleep(0.01)
          say(frame > before and "frames" or "no frame")
          say("sum", sum)
          love.event.quit()
        end)
      end
      function love.update() frame = frame + 1 end
      function love.quit() say "quit" end
    ]])
  end)

  it("may wait in a frame; a long wait is told of, once", function()
    local err = says({ "3", "done" }, [[
      local treadle = require "treadle"
      local pool = treadle.pool("game_tasks")
      local frame = 0
      function love.update()
        frame = frame + 1
        if frame == 2 then
          say(pool.call.add(1, 2):await())
        elseif frame == 3 or frame == 4 then
          treadle.sleep(0.15)
        elseif frame == 5 then
          say "done"
          love.event.quit()
        end
      end
    ]])
    local _, count = err:gsub("a wait held up a frame for 0%.%d+ s", "")
    assert.equal(1, count, err)
    assert.truthy(err:find("main.lua:", 1, true), err)
  end)

  it("begins nothing more in a frame whose budget is used up", function()
    says({ "5 callbacks in 5 frames", "unlimited: 1 frames" }, [[
      local treadle = require "treadle"
      local joint = treadle.attach("love", { budget = 0 })
      local frame, seen, count = 0, {}, 0
      local function begin()
        seen, count = {}, 0
        for _ = 1, 5 do
          require("treadle.loop").defer(function()
            seen[frame], count = true, count + 1
          end)
        end
      end
      local function frames()
        local n = 0
        for _ in pairs(seen) do n = n + 1 end
        return n
      end
      begin()
      local second = false
      function love.update()
        frame = frame + 1
        if count == 5 and not second then
          say("5 callbacks in", frames(), "frames")
          second = true
          joint:detach()
          treadle.attach("love", { budget = math.huge })
          begin()
        elseif count == 5 then
          say("unlimited:", frames(), "frames")
          love.event.quit()
        end
      end
    ]])
  end)

  it("shows an error out of a turn as its own errors", function()
    local said, err, code = love(folder_of(files_of [[
      local treadle = require "treadle"
      function love.load()
        require("treadle.loop").defer(function() error "nobody catches this" end)
      end
    ]]))
    assert.equal(7, code, err)
    assert.equal(1, #said, err)
    assert.truthy(said[1]:find "^error .*main%.lua:%d+: nobody catches this", said[1])
    said, err, code = love(folder_of(files_of [[
      local treadle = require "treadle"
      function love.load()
        treadle.spawn(function() treadle.sleep(0.001) error "nor this" end)
      end
      function love.update() collectgarbage() end
    ]]))
    assert.equal(7, code, err)
    assert.equal(1, #said, err)
    assert.truthy(said[1]:find "^error .*main%.lua:%d+: nor this", said[1])
  end)

  it("finds modules of the game in workers: in a folder, in a .love file", function()
    local files = files_of [[
      local treadle = require "treadle"
      local own = {}
      local stays = io.stdout -- cannot be sent: the worker must find the function in this file
      local function twice(x) return stays and 2 * x end
      function own.both(x) return twice(x), require("treadle").is_main end
      if treadle.is_main then
        local pool = treadle.pool("game_tasks", { threads = 1 })
        say(pool.call.add(1, 2):await(), pool.call.part():await())
        say(treadle.pool(own, { threads = 1 }).call.both(4):await())
        love.event.quit()
      end
      return own
    ]]
    local wanted = { "3 parts.deep", "8 false" }
    local said, err, code = love(folder_of(files))
    assert.same(wanted, said, err)
    assert.equal(0, code)
    said, err, code = love(helpers.write(helpers.new_path ".love", zip(files)))
    assert.same(wanted, said, err)
    assert.equal(0, code)
  end)

  it("may bring treadle along in its folder", function()
    local files = files_of [[
      package.cpath = love.filesystem.getSource() .. "/?.so;" .. package.cpath
      local treadle = require "treadle"
      say(treadle.pool("game_tasks").call.add(1, 2):await())
      love.event.quit()
    ]]
    local folder = folder_of(files)
    local module = package.searchpath("treadle", package.cpath)
    os.execute(("cp %s %s/treadle.so"):format(helpers.quote(module), folder))
    local said, err, code = love(folder, nil, "unset LUA_CPATH;")
    assert.same({ "3" }, said, err)
    assert.equal(0, code)
  end)

  it("ends with tasks that do not end; their states leave as they do elsewhere", function()
    local left = helpers.new_path()
    says({ "quit" }, ([[
      local treadle = require "treadle"
      local pool = treadle.pool("game_tasks", { threads = 1, teardown = "leave", data = %q })
      local other = treadle.pool("game_tasks", { threads = 2 })
      for _ = 1, 4 do other.call.endless() end
      function love.update() love.event.quit(3) end
      function love.quit() say "quit" end
    ]]):format(left), 3)
    assert.equal("left", helpers.read(left))
  end)

  it("is attached to once, and refuses what it does not know", function()
    says({ "attached to love already", "unknown option 'budgets', did you mean 'budget'?",
        "seconds", "3" }, [[
      local treadle = require "treadle"
      local function why(...) return select(2, pcall(treadle.attach, ...)) end
      local joint = treadle.attach(love)
      say(why "love":match "attached to love already")
      joint:detach()
      say(why("love", { budgets = 1 }):match "unknown option.*%?")
      say(why("love", { budget = "much" }):match "seconds")
      treadle.attach()
      say(treadle.pool("game_tasks").call.add(1, 2):await())
      love.event.quit()
    ]])
  end)

  it("leaves the states of love.thread alone, which wait by themselves", function()
    says({ "3" }, [[
      local thread = love.thread.newThread [=[
        local treadle = require "treadle"
        local pool = treadle.pool("string", { threads = 1 })
        love.thread.getChannel("back"):push(pool.call.len("abc"):await())
        pool:close()
      ]=]
      thread:start()
      function love.update()
        local got = love.thread.getChannel("back"):pop()
        if got then
          say(got)
          love.event.quit()
        end
        assert(not thread:getError(), thread:getError())
      end
    ]])
  end)

  it("plays the examples of its page", function()
    local count = 0
    local page = helpers.read(helpers.folder .. "/../../docs/love.md")
    for block in page:gmatch "```lua love\n(.-)```" do
      count = count + 1
      says({ "well" }, block .. '\nfunction love.quit() say "well" end')
    end
    assert.is_true(count >= 1)
  end)

  it("draws the example's picture, tile by tile, while frames go on", function()
    local shot = helpers.new_path ".png"
    local _, err, code, out = love(EXAMPLE, "--screenshot=" .. shot)
    assert.equal(0, code, err)
    local idle, tasks, inline = out:match("(idle[^\n]*)\n(tasks[^\n]*)\n"
      .. "sprite[^\n]*\n(inline[^\n]*)")
    assert.truthy(inline, out .. err)
    print(("# %s\n# %s\n# %s"):format(idle, tasks, inline))
    assert.is_true(tonumber(tasks:match "%d+") > 2, tasks)
    assert.equal("\137PNG", helpers.read(shot):sub(1, 4))

    local text = helpers.read(shot .. ".rgba")
    local size, tile, pixels = 512, 64, ffi.cast("const uint32_t *", text)
    assert.equal(size * size * 4, #text)
    local x, y, radius = out:match "sprite (%d+) (%d+) (%d+)"
    local draw = dofile(EXAMPLE .. "/tasks.lua").tile
    local different, compared, shown = 0, 0, 0
    for top = 0, size - 1, tile do
      for left = 0, size - 1, tile do
        local wanted_text = draw({ x = -2, y = -1.25, scale = 2.5 / size }, left, top, tile)
        local wanted = ffi.cast("const uint32_t *", wanted_text)
        for i = 0, tile * tile - 1 do
          local px, py = left + i % tile, top + math.floor(i / tile)
          local distance = math.sqrt((px - x) ^ 2 + (py - y) ^ 2)
          local pixel = pixels[py * size + px]
          if distance > radius + 2 then
            compared = compared + 1
            different = different + (pixel ~= wanted[i] and 1 or 0)
          elseif distance < radius - 2 then
            shown = shown + (pixel == 0xffffffff and 1 or 0)
          end
        end
      end
    end
    assert.equal(0, different)
    assert.is_true(compared > size * size * 0.95)
    assert.is_true(shown > 1000) -- the sprite
  end)
end)
