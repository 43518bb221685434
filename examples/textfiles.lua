--- Finds the files below some folders, and cuts those of text into batches of equal size.
local uv = require "luv"

local SAMPLE_BYTES = 8 * 2 ^ 10 -- a NUL byte in here, and the file is not text
local BLOCK_BYTES = 2 ^ 20

local textfiles = {}

-- Reads text to its end, which brings all of it into the page cache.
local function is_text(file)
  local block = file:read(SAMPLE_BYTES)
  if not block or block:find("\0", 1, true) then
    return false
  end
  while block do
    block = file:read(BLOCK_BYTES)
  end
  return true
end

--- Visit all files below `folders`, those of a folder by name. Links are not followed and a folder
-- is entered once, however it is reached, so neither loops nor overlapping arguments show a file
-- twice.
-- @param visit called as `visit(path, size)` for each regular file; as `visit(path, nil, message)`
-- for what cannot be looked at
function textfiles.walk(folders, visit)
  local seen = {}

  local function visit_folder(folder, stat)
    local id = stat.dev .. ":" .. stat.ino
    if seen[id] then
      return
    end
    seen[id] = true
    local entries, problem = uv.fs_scandir(folder)
    if not entries then
      visit(folder, nil, problem)
      return
    end
    for name in uv.fs_scandir_next, entries do
      local path = folder:gsub("/*$", "/", 1) .. name
      local entry, message = uv.fs_lstat(path)
      if not entry then
        visit(path, nil, message)
      elseif entry.type == "directory" then
        visit_folder(path, entry)
      elseif entry.type == "file" then
        visit(path, entry.size)
      end
    end
  end

  for _, folder in ipairs(folders) do
    visit_folder(folder, assert(uv.fs_stat(folder)))
  end
end

--- Find the text files below `folders`, and read each of them once.
-- @return `{ files = list of { path, size }, bytes, skipped, unreadable }`
function textfiles.find(folders)
  local found = { files = {}, bytes = 0, skipped = 0, unreadable = 0 }
  textfiles.walk(folders, function(path, size, message)
    local file
    -- An empty file is not even opened: a special one, as in /proc, might block.
    if not message and size > 0 then
      file, message = io.open(path, "rb")
    end
    if message then
      found.unreadable = found.unreadable + 1
    elseif file and is_text(file) then
      found.files[#found.files + 1] = { path = path, size = size }
      found.bytes = found.bytes + size
    else
      found.skipped = found.skipped + 1
    end
    if file then
      file:close()
    end
  end)
  return found
end

--- Cut `files` into batches of `size` bytes: small files go together, large ones are cut.
-- @return a list of lists of pieces `{ path, first, last }`, bytes `first` to `last - 1`
function textfiles.cut(files, size)
  local batches, room = {}, 0
  for _, file in ipairs(files) do
    local first = 0
    while first < file.size do
      if room == 0 then
        batches[#batches + 1], room = { bytes = 0 }, size
      end
      local batch = batches[#batches]
      local last = math.min(file.size, first + room)
      batch[#batch + 1] = { path = file.path, first = first, last = last }
      batch.bytes = batch.bytes + last - first
      room = room - (last - first)
      first = last
    end
  end
  return batches
end

return textfiles
