--- Tables that nobody changes any more, and that all states read where they lie.
--
-- A state sees each of them as a userdata of its own, the view (src/bind/shared.c). The view's
-- `__index` is a plain table, which holds what was read, so that a look is two looks of LuaJIT's
-- own, which it compiles. It is filled at the first look; where there is much, look by look, until
-- it pays to read the rest.
-- @module treadle.shared
local core = require "treadle.core"
local share = require "treadle.share"

local getmetatable, next, setmetatable, type = getmetatable, next, setmetatable, type
local max = math.max
local core_open, core_fill, core_look = core.shared_open, core.shared_fill, core.shared_look
local view_name = core.shared_tostring

--- Functions of it travel as upvalues (docs/payloads.md): they reach all else by this table, which
-- does so by its name.
local M = {}

--- What views have read, view -> table, for those whose table was asked for, and holds all. Weak on
-- both sides: the view's metatable keeps the table.
M.whole = setmetatable({}, { __mode = "kv" })

local function none()
  return 0
end

--- The first look at a view: its metatable gets what looks from then on.
local function open(view)
  local mt, cache, length, count = core_open(view)
  if count then
    local looks = max(1, count / core.LOOKS_SHARE)
    setmetatable(cache, {
      __index = function(_, key)
        looks = looks - 1
        if looks > 0 then
          local value = core_look(view, cache, key) -- no tail call: compiled code can leave it
          return value
        end
        core_fill(view, cache)
        setmetatable(cache, nil)
        return cache[key]
      end,
    })
  end
  mt.__len = length > 0 and function() return length end or none
  mt.__index = cache
  return cache
end

--- The table with all that a view has; nil when it is something else.
function M.contents(view)
  local mt = core.shared_meta(view)
  if not mt then
    return nil
  end
  local cache = mt.__index
  if type(cache) == "function" then
    cache = open(view)
  end
  if getmetatable(cache) then
    core_fill(view, cache)
    setmetatable(cache, nil)
  end
  M.whole[view] = cache
  return cache
end

local function first_look(view, key)
  local cache = open(view)
  return cache[key]
end

local function first_length(view)
  open(view)
  return #view
end

local function write()
  error("shared tables are immutable", 2)
end

local function view_pairs(view)
  return next, M.contents(view), nil
end

local function view_ipairs(view)
  return M.before_ipairs(M.contents(view))
end

--- A view's metatable. LuaJIT asks for the last two if it was built for Lua 5.2's.
local function new_metatable()
  return {
    __index = first_look, __len = first_length, __newindex = write, __tostring = view_name,
    __metatable = "treadle.shared", __pairs = view_pairs, __ipairs = view_ipairs,
  }
end

share.kind("shared", {}, { view = new_metatable })

--- Lua's own, by names by which they travel; and whether it knows nothing of `__pairs`.
M.before_pairs, M.before_ipairs = pairs, ipairs
M.is_plain = pairs(setmetatable({}, { __pairs = function() end })) == next

function M.refuse(name, t)
  error(("bad argument #1 to '%s' (table expected, got %s)"):format(name, type(t)), 3)
end

--- `pairs` for plain tables and shared ones.
function M.pairs(t)
  if type(t) == "table" and M.is_plain then
    return next, t, nil
  end
  local contents = M.whole[t] or M.contents(t)
  if contents then
    return next, contents, nil
  elseif M.is_plain then
    M.refuse("pairs", t)
  end
  return M.before_pairs(t)
end

--- `ipairs` for plain tables and shared ones.
function M.ipairs(t)
  if type(t) ~= "table" then
    local contents = M.whole[t] or M.contents(t)
    if contents then
      return M.before_ipairs(contents)
    elseif M.is_plain then
      M.refuse("ipairs", t)
    end
  end
  return M.before_ipairs(t)
end

--- A state that has shared tables has these in the place of Lua's own, from the first one on.
rawset(_G, "pairs", M.pairs)
rawset(_G, "ipairs", M.ipairs)

--- A deep, immutable copy of the table, for all states.
M.new = core.shared_new

return M
