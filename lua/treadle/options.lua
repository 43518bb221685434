--- Checking what callers give: types, ranges, names of options.
-- Every message is that of a function the caller wrote, at the caller's line.
-- @module treadle.options
local options = {}

--- What Lua's own argument errors call a value: its type, "no value" for nil.
local function type_name(value)
  return value == nil and "nil" or type(value)
end

--- Raise `bad argument #1 to 'pool' (...)` at the line of the caller's caller.
-- @param level as for `error`, counted from the function that calls this one
function options.bad_argument(index, name, message, level)
  error(("bad argument #%d to '%s' (%s)"):format(index, name, message), (level or 1) + 2)
end

--- Raise that a method was called with something else than its object.
-- @param level as above
function options.misused(name, expected, value, level)
  error(("bad argument #1 to '%s' (%s expected, got %s): call it with a colon"):format(name,
    expected, type(value)), (level or 1) + 2)
end

--- Check that an argument has a type; `expected` may name several: "string or table".
function options.argument(index, name, value, expected, level)
  local actual = type(value)
  for word in expected:gmatch("[%w_]+") do
    if actual == word then
      return value
    end
  end
  options.bad_argument(index, name, ("%s expected, got %s"):format(expected, type_name(value)),
    (level or 1) + 1)
end

--- Check that an argument is a number of seconds, also one below 0 or `math.huge`; NaN is none.
function options.seconds(index, name, value)
  options.argument(index, name, value, "number", 2)
  if value ~= value then
    options.bad_argument(index, name, "seconds expected, got nan", 2)
  end
end

--- How many letters must change to make `a` of `b` (Levenshtein's distance).
local function distance(a, b)
  local row = {}
  for j = 0, #b do
    row[j] = j
  end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local above = row[j]
      local same = a:byte(i) == b:byte(j)
      row[j] = math.min(above + 1, row[j - 1] + 1, diagonal + (same and 0 or 1))
      diagonal = above
    end
  end
  return row[#b]
end

--- The name in `known` (a table keyed by names) that is most like `name`.
function options.nearest(name, known)
  local best, best_distance
  for candidate in pairs(known) do
    local d = distance(tostring(name), candidate)
    if not best or d < best_distance or (d == best_distance and candidate < best) then
      best, best_distance = candidate, d
    end
  end
  return best
end

local checks = {}

function checks.count(value)
  return type(value) == "number" and value >= 1 and value == math.floor(value) and value < 2 ^ 31,
    "a whole number of at least 1"
end

function checks.tally(value)
  return type(value) == "number" and value >= 0 and value == math.floor(value) and value < 2 ^ 31,
    "a whole number of at least 0"
end

function checks.seconds(value)
  return type(value) == "number" and value >= 0, "seconds, a number of at least 0"
end

function checks.bytes(value)
  return type(value) == "number" and value >= 1, "bytes, a number of at least 1"
end

function checks.name(value)
  if value == "" then
    return false, "a string that is not empty"
  end
  return type(value) == "string", "a string"
end

function checks.string(value)
  return type(value) == "string", "a string"
end

function checks.boolean(value)
  return type(value) == "boolean", "a boolean"
end

function checks.callable(value)
  return type(value) == "function", "a function"
end

function checks.limit(value)
  return value == math.huge or value == 0 or checks.count(value), "a whole number of at least 0"
end

--- What tells calls apart that belong together: NaN is not even equal to itself.
function checks.key(value)
  local kind = type(value)
  return kind == "string" or kind == "boolean" or kind == "number" and value == value,
    "a string, number or boolean"
end

--- A check for one of some words.
local function choice(...)
  local words, known = { ... }, {}
  for i, word in ipairs(words) do
    known[word] = true
    words[i] = ("'%s'"):format(word)
  end
  local wanted = table.concat(words, ", ", 1, #words - 1) .. " or " .. words[#words]
  return function(value)
    return known[value] ~= nil, wanted, type(value) == "string"
      and ("'%s', did you mean '%s'?"):format(value, options.nearest(value, known)) or nil
  end
end

checks.priority = choice("high", "normal", "low")
checks.on_full = choice("reject", "wait", "run")
checks.runtime = choice("thread", "process")
checks.balancer_name = choice("shared", "round_robin", "least_busy", "random")

function checks.balancer(value)
  if type(value) == "function" then
    return true
  end
  local fine, wanted, got = checks.balancer_name(value)
  return fine, "a function, " .. wanted, got
end

function checks.list(value)
  return type(value) == "table", "a list"
end

--- A command and its arguments.
function checks.texts(value)
  local fine = type(value) == "table" and #value > 0
  for i = 1, fine and #value or 0 do
    fine = fine and type(value[i]) == "string" and not value[i]:find("%z")
  end
  return fine, "a list of strings"
end

function checks.any()
  return true
end

--- Check one argument by the name of a check.
function options.value(index, name, value, check, level)
  local fine, wanted = checks[check](value)
  if not fine then
    options.bad_argument(index, name, ("%s expected, got %s"):format(wanted,
      type(value) == "number" and tostring(value) or type_name(value)), (level or 1) + 1)
  end
  return value
end

--- Check a table of options.
-- @param index which argument it is
-- @param name the function's name, for messages
-- @param given the table, or nil for none
-- @param known option name -> name of a check, or a function like one
-- @return the table, never nil
function options.check(index, name, given, known, level)
  level = (level or 1) + 1
  if given == nil then
    return {}
  end
  options.argument(index, name, given, "table", level)
  for key, value in pairs(given) do
    local check = known[key]
    if not check then
      options.bad_argument(index, name, ("unknown option '%s', did you mean '%s'?"):format(
        tostring(key), options.nearest(key, known)), level)
    end
    local fine, wanted, got = (checks[check] or check)(value)
    if not fine then
      options.bad_argument(index, name, ("option '%s': %s expected, got %s"):format(key, wanted,
        got or type(value) == "number" and tostring(value) or type_name(value)), level)
    end
  end
  return given
end

return options
