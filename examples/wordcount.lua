--- Counts the words of all text files below some folders on all cores, and proves the answer:
-- this state then counts them again alone, and the number of every single word has to agree.
--
--   treadle examples/wordcount.lua                          licences and documentation
--   treadle examples/wordcount.lua [--threads N] FOLDER...  other folders
--
-- What it shows: the single-file form (this file exports its tasks; the workers run it again),
-- work cut into pieces of equal size, results merged as they come in, a progress bar.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path

local treadle = require "treadle"
local progress = require "progress"
local textfiles = require "textfiles"

local arguments = require "arguments" ("wordcount", [[
usage: treadle wordcount.lua [--threads N] [FOLDER...]
Counts the words of all text files below the folders, in parallel and then sequentially.
Without a folder: /usr/share/common-licenses and /usr/share/doc.
]])
local DEFAULT_FOLDERS = { "/usr/share/common-licenses", "/usr/share/doc" }

-- A word is a run of ASCII letters and of the bytes that spell every other letter in UTF-8.
local WORD = "[%a\128-\255]+"
local NO_WORD = "[^%a\128-\255]"

local KIB, MIB = 2 ^ 10, 2 ^ 20
local BATCHES = 16 -- per worker: enough that all of them end at about the same time
local SEQUENTIAL_BATCH = 8 * MIB -- cut unlike the parallel batches, so the check covers the cuts

local tasks = {}

-- The text of one piece of a file. A word that crosses an end belongs to where it starts.
local function read_piece(piece)
  local file = assert(io.open(piece.path, "rb"))
  -- The byte before the piece tells whether the piece starts inside a word.
  local from = math.max(piece.first - 1, 0)
  file:seek("set", from)
  local text = file:read(piece.last - from) or ""
  if piece.first > 0 then
    text = text:sub(text:find(NO_WORD) or #text + 1)
  end
  local parts, inside = { text }, text:find(WORD, -1)
  while inside do
    local more = file:read(KIB) or " "
    local stop = more:find(NO_WORD)
    parts[#parts + 1] = more:sub(1, (stop or 0) - 1)
    inside = not stop
  end
  file:close()
  return table.concat(parts)
end

--- The task: count the words of a list of pieces.
-- @return a table word -> count, and the number of words
function tasks.count(pieces)
  local counts, words = {}, 0
  for _, piece in ipairs(pieces) do
    for word in read_piece(piece):lower():gmatch(WORD) do
      counts[word] = (counts[word] or 0) + 1
      words = words + 1
    end
  end
  return counts, words
end

local function merge(total, counts, words)
  for word, count in pairs(counts) do
    total.counts[word] = (total.counts[word] or 0) + count
  end
  total.words = total.words + words
end

local function count_parallel(found, threads)
  local size = math.ceil(found.bytes / (threads * BATCHES))
  local batches = textfiles.cut(found.files, math.max(4 * KIB, math.min(size, MIB)))
  local total, done = { counts = {}, words = 0 }, 0
  treadle.using(treadle.pool(tasks, { threads = threads }), function(pool)
    treadle.using(progress.new("counting", found.bytes), function(bar)
      local futures = {}
      for i, batch in ipairs(batches) do
        futures[i] = pool.call.count(batch)
      end
      for i, future in treadle.as_completed(futures) do
        merge(total, future:await())
        done = done + batches[i].bytes
        bar:update(done)
      end
    end)
  end)
  return total
end

local function count_sequential(found)
  local total, done = { counts = {}, words = 0 }, 0
  treadle.using(progress.new("checking", found.bytes), function(bar)
    for _, batch in ipairs(textfiles.cut(found.files, SEQUENTIAL_BATCH)) do
      merge(total, tasks.count(batch))
      done = done + batch.bytes
      bar:update(done)
    end
  end)
  return total
end

-- Both passes read from the page cache: `textfiles.find` has just read everything once.
local function timed(fn, ...)
  collectgarbage()
  local start = treadle.now()
  local result = fn(...)
  return result, treadle.now() - start
end

-- nil when the answers agree, else what does not.
local function difference(parallel, sequential)
  local format = "%q %d times in parallel, %d times sequentially"
  for _, counts in ipairs { parallel.counts, sequential.counts } do
    for word in pairs(counts) do
      local p, s = parallel.counts[word] or 0, sequential.counts[word] or 0
      if p ~= s then
        return format:format(word, p, s)
      end
    end
  end
  if parallel.words ~= sequential.words then
    return format:format("all words", parallel.words, sequential.words)
  end
end

-- The distinct words, the most frequent first.
local function ranked(counts)
  local list = {}
  for word in pairs(counts) do
    list[#list + 1] = word
  end
  table.sort(list, function(a, b)
    if counts[a] ~= counts[b] then
      return counts[a] > counts[b]
    end
    return a < b
  end)
  return list
end

local function grouped(n)
  local digits = ("%d"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", "")
  return digits
end

local function row(label, value, note)
  print(("%-16s%14s%s"):format(label, value, note and "  " .. note or ""))
end

local function report(found, total)
  local list = ranked(total.counts)
  local skipped = ("skipped: %d empty or not text, %d unreadable"):format(
    found.skipped, found.unreadable)
  row("files", grouped(#found.files), skipped)
  row("bytes", grouped(found.bytes))
  row("words", grouped(total.words))
  row("distinct words", grouped(#list))
  print()
  for i = 1, math.min(10, #list) do
    local word = #list[i] <= 40 and list[i] or list[i]:sub(1, 37) .. "..."
    row(("%2d. %s"):format(i, word), grouped(total.counts[list[i]]))
  end
  print()
end

local function parse(args)
  local folders, threads = {}, treadle.cores()
  local i = 1
  while i <= #args do
    local word = args[i]
    arguments:help(word)
    if word == "--threads" then
      i = i + 1
      threads = tonumber(args[i])
      if not threads or threads < 1 or threads % 1 ~= 0 then
        arguments:fail("--threads needs a number of workers, got '%s'", args[i] or "nothing")
      end
    elseif word:sub(1, 1) == "-" then
      arguments:fail("unknown option '%s'", word)
    else
      folders[#folders + 1] = word
    end
    i = i + 1
  end
  if #folders == 0 then
    folders = DEFAULT_FOLDERS
  end
  for _, folder in ipairs(folders) do
    arguments:folder(folder)
  end
  return folders, threads
end

local function main(...)
  local folders, threads = parse { ... }
  local found = treadle.using(progress.new("finding text files"), function()
    return textfiles.find(folders)
  end)
  if found.bytes == 0 then
    print("no text files below " .. table.concat(folders, ", "))
    return
  end
  local parallel, parallel_time = timed(count_parallel, found, threads)
  local sequential, sequential_time = timed(count_sequential, found)
  report(found, parallel)
  row("sequential", ("%.3f s"):format(sequential_time))
  row("parallel", ("%.3f s"):format(parallel_time),
    ("%d worker%s, their start included"):format(threads, threads == 1 and "" or "s"))
  row("speed-up", ("%.2f"):format(sequential_time / parallel_time))
  local wrong = difference(parallel, sequential)
  if wrong then
    io.stderr:write("wordcount: the answers differ: ", wrong,
      " (or a file changed meanwhile)\n")
    os.exit(1)
  end
  print("every count agrees with the sequential one")
end

if treadle.is_main then
  main(...)
end

return tasks
