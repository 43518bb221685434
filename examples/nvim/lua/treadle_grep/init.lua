--- Searches a tree of files in workers: hits come into the quickfix list as they are found, while
-- the editor goes on. A new search ends the one before.
local M = {}

--- How many files are searched by one call.
local FILES = 16

local pool -- made at the first search
local current -- the search that is under way, or was last

local function open_pool()
  pool = pool or require("treadle").pool("treadle_grep.tasks", { name = "grep" })
  return pool
end

--- How far a search is, in a line.
local function describe(s)
  if s.failed then
    return ("grep: %s"):format(s.failed)
  end
  return ("grep: %d of %d files, %d hits%s"):format(s.searched, #s.files, s.hits,
    s.is_over and "" or " ...")
end

--- For a statusline: %{v:lua.require'treadle_grep'.status()}
function M.status()
  return current and describe(current) or ""
end

--- Hits go to the end of this search's list, also if the user looks at another one by now.
local function add(search, hits)
  if #hits > 0 then
    search.hits = search.hits + #hits
    vim.fn.setqflist({}, "a", { id = search.list, items = hits })
  end
  vim.cmd "redrawstatus"
end

local function run(search, folder, pattern, plain)
  local treadle = require "treadle"
  search.files = open_pool().call.files(folder):await()
  for i = 1, #search.files, FILES do
    local part = { unpack(search.files, i, i + FILES - 1) }
    search.calls[#search.calls + 1] = pool.call.search(part, pattern, plain)
  end
  for i, call in treadle.as_completed(search.calls) do
    add(search, call:await())
    search.searched = search.searched + math.min(FILES, #search.files - (i - 1) * FILES)
  end
end

--- End the search that is under way; what it has found stays.
function M.cancel()
  local search = current
  if search and not search.is_over then
    search.future:cancel "the search was cancelled"
    for _, call in ipairs(search.calls) do
      call:cancel "the search was cancelled"
    end
  end
end

--- Look for `pattern` in the files below a folder.
-- @tparam string pattern
-- @tparam[opt] table options `folder`: default the current one; `plain`: `pattern` is no Lua
-- pattern, but what is looked for; `on_done(status)`: called at the end
function M.search(pattern, options)
  options = options or {}
  local treadle = require "treadle"
  M.cancel()
  vim.fn.setqflist({}, " ", { title = "grep " .. pattern })
  local search = {
    list = vim.fn.getqflist({ id = 0 }).id, files = {}, calls = {}, searched = 0, hits = 0,
  }
  current = search
  search.future = treadle.spawn(run, search, options.folder or ".", pattern, options.plain or false)
  treadle.spawn(function()
    local ok, err = search.future:pawait()
    search.is_over = true
    search.failed = not ok and err.message or nil
    if options.on_done then
      options.on_done(describe(search))
    elseif search == current then
      vim.api.nvim_echo({ { describe(search), not ok and "WarningMsg" or nil } }, false, {})
    end
  end)
end

return M
