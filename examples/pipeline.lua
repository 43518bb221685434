--- Prints the SHA-256 sum of every file below some folders, as sha256sum does: a pipeline.
--
--   one task reads  -- files -->  N tasks hash  -- sums -->  this state prints
--
--   treadle examples/pipeline.lua                          the tree that it lies in
--   treadle examples/pipeline.lua [--threads N] FOLDER...  other folders
--   treadle examples/pipeline.lua | sha256sum -c --quiet   the proof
--
-- What it shows: channels between stages that all run at the same time. Each holds few messages, so
-- that a stage that is ahead waits (a file of any size passes through little memory). Closing one
-- ends those who receive from it. A channel travels in a message, for the blocks of one file.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path

local treadle = require "treadle"
local uv = require "luv"
local sha256 = require "sha256"
local textfiles = require "textfiles"

local arguments = require "arguments" ("pipeline", [[
usage: treadle pipeline.lua [--threads N] [FOLDER...]
Prints the SHA-256 sums of all files below the folders, made by N tasks, as sha256sum does.
Without a folder: the tree that this program lies in.
]])
local BLOCK_BYTES = 2 ^ 18
local BLOCKS_AHEAD = 4 -- of each file that is being read
local SUMS_AHEAD = 64

local tasks = {}

-- --- the stages ----------------------------------------------------------------------------------

-- Send the blocks of a file, and close their channel; a table says why it cannot be read.
local function send_blocks(file, path, blocks)
  repeat
    local block, message = file:read(BLOCK_BYTES)
    if message then
      blocks:send { problem = path .. ": " .. message }
    elseif block then
      blocks:send(block)
    end
  until not block
  blocks:close()
  file:close()
end

--- The first stage: send each file to `files`, with a channel on which its blocks then come. What
-- cannot be opened goes straight to `sums`.
-- @return how many there were
function tasks.read(folders, files, sums)
  local count, readers = 0, {}
  textfiles.walk(folders, function(path, size, message)
    local file
    if size then
      file, message = io.open(path, "rb")
    end
    count = count + 1
    if file then
      local blocks = treadle.channel(BLOCKS_AHEAD)
      files:send { number = count, path = path, blocks = blocks } -- waits for room
      readers[#readers + 1] = treadle.spawn(send_blocks, file, path, blocks)
    else
      sums:send { number = count, path = path, problem = message }
    end
  end)
  files:close()
  treadle.all(readers):await()
  return count
end

--- The second stage, of which there are several: hash whichever file comes next.
function tasks.hash(files, sums)
  for file in files:iter() do
    local hash, bytes, problem = sha256.new(), 0, nil
    for block in file.blocks:iter() do
      if type(block) == "table" then
        problem = block.problem
      else
        hash:update(block)
        bytes = bytes + #block
      end
    end
    sums:send {
      number = file.number, path = file.path, problem = problem, sum = hash:hex(), bytes = bytes,
    }
  end
end

-- A line as sha256sum writes it: a backslash at its head says that there are some in the name.
local function line_of(sum, path)
  local escapes = { ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r" }
  local name, count = path:gsub("[\\\n\r]", escapes)
  return ("%s%s  %s\n"):format(count > 0 and "\\" or "", sum, name)
end

-- The last stage: print, in the order in which the files were found. What comes early waits.
local function print_sums(sums)
  local total, early, number = { files = 0, bytes = 0, problems = 0 }, {}, 1
  for sum in sums:iter() do
    early[sum.number] = sum
    while early[number] do
      local next_sum = early[number]
      early[number], number = nil, number + 1
      if next_sum.problem then
        total.problems = total.problems + 1
        io.stderr:write("pipeline: cannot read ", next_sum.problem, "\n")
      else
        total.files, total.bytes = total.files + 1, total.bytes + next_sum.bytes
        io.write(line_of(next_sum.sum, next_sum.path))
      end
    end
  end
  return total, number - 1
end

local function run_stages(pool, folders, threads)
  local files, sums = treadle.channel(threads), treadle.channel(SUMS_AHEAD)
  local reader = pool.call.read(folders, files, sums)
  local stages = { reader }
  for _ = 1, threads do
    stages[#stages + 1] = pool.call.hash(files, sums)
  end
  local done = treadle.all(stages):finally(function() sums:close() end)
  local total, printed = print_sums(sums)
  done:await()
  assert(printed == reader:await(), "a sum is missing")
  return total
end

local function run(folders, threads)
  return treadle.using(treadle.pool(tasks, { threads = threads + 1 }), function(pool)
    local ok, result = pcall(run_stages, pool, folders, threads)
    if not ok then -- Ctrl-C, or a stage failed: the others would wait for each other
      pool:terminate()
      error(result, 0)
    end
    return result
  end)
end

-- --- the program ---------------------------------------------------------------------------------

local function parse(args)
  local folders, threads = {}, treadle.cores()
  local i = 1
  while i <= #args do
    local word = args[i]
    arguments:help(word)
    if word == "--threads" then
      i = i + 1
      threads = tonumber(args[i])
      if not threads or threads < 1 or threads > 1000 or threads % 1 ~= 0 then
        arguments:fail("--threads needs a whole number from 1 to 1000, got '%s'",
          args[i] or "nothing")
      end
    elseif word:sub(1, 1) == "-" then
      arguments:fail("unknown option '%s'", word)
    else
      arguments:folder(word)
      folders[#folders + 1] = word
    end
    i = i + 1
  end
  if #folders == 0 then
    folders[1] = assert(uv.fs_realpath(here .. ".."))
  end
  return folders, threads
end

local function main(...)
  local folders, threads = parse { ... }
  io.stdout:setvbuf("line") -- whole lines, whenever this ends
  local start = treadle.now()
  local total = run(folders, threads)
  local seconds = treadle.now() - start
  io.stdout:flush()
  io.stderr:write(("pipeline: %d files, %d unreadable, %d bytes in %.3f s by %d hashing tasks\n")
    :format(total.files, total.problems, total.bytes, seconds, threads))
  if total.problems > 0 then
    os.exit(1)
  end
end

if treadle.is_main then
  main(...)
end

return tasks
