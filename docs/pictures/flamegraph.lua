--- Draws a flame graph: where time was spent, by stack. A frame stands on its caller and is as wide
-- as its share of the samples; the heaviest of those beside each other is to the left.
--
--   lua docs/pictures/flamegraph.lua [--title TEXT] [--width PIXELS] < FOLDED > flame.svg
--
-- FOLDED has one stack a line, from the root to the leaf, and how often it was met:
-- "main;count;read 12". `pool:profile(1):folded()` gives such text. The picture is an SVG without
-- scripts; a frame says more when the mouse is on it. It has a light and a dark look.

local M = {}

local USAGE = [[
usage: lua flamegraph.lua [--title TEXT] [--width PIXELS] < FOLDED > flame.svg
]]

local WIDTH, MARGIN, HEAD = 1000, 10, 44 -- pixels, as all that follows
local ROW = 20
local FONT, LETTER = 12, 7.3 -- a letter of a monospaced font is 0.6 of its height wide
local PADDING = 4
local HEAD_LETTER = 9 -- of the title
local LEAST_LETTERS = 3
local LEAST = 0.1 -- narrower frames are left out, and what stands on them
local COLOURS = 8

-- --- stacks --------------------------------------------------------------------------------------

local function new_node(name)
  return { name = name, total = 0, self = 0, children = {}, by_name = {} }
end

local function child_of(node, name)
  local child = node.by_name[name]
  if not child then
    child = new_node(name)
    node.by_name[name] = child
    node.children[#node.children + 1] = child
  end
  return child
end

local function sort_children(node)
  table.sort(node.children, function(a, b)
    return a.total > b.total or a.total == b.total and a.name < b.name
  end)
  for _, child in ipairs(node.children) do
    sort_children(child)
  end
end

--- Read folded stacks.
-- @return a tree of { name =, total =, self =, children = }, whose root is "all"; or nil, what is
-- wrong
function M.read(text)
  local root, number = new_node "all", 0
  for line in (text .. "\n"):gmatch "(.-)\r?\n" do
    number = number + 1
    local stack, count = line:match "^(.-)%s+([%d.]+)%s*$"
    count = tonumber(count)
    if count and stack ~= "" then
      local node = root
      node.total = node.total + count
      for name in stack:gmatch "[^;]+" do
        node = child_of(node, name)
        node.total = node.total + count
      end
      node.self = node.self + count
    elseif line:find "%S" then
      return nil, ("line %d is no stack and count: %s"):format(number, line)
    end
  end
  if root.total == 0 then
    return nil, "there are no stacks"
  end
  sort_children(root)
  return root
end

-- --- text ----------------------------------------------------------------------------------------

--- The sequences of UTF-8, but for ASCII, in which each code has one.
local SEQUENCES = {
  "^[\194-\223][\128-\191]", "^\224[\160-\191][\128-\191]",
  "^[\225-\236\238\239][\128-\191][\128-\191]",
  "^\237[\128-\159][\128-\191]", "^\240[\144-\191][\128-\191][\128-\191]",
  "^[\241-\243][\128-\191][\128-\191][\128-\191]", "^\244[\128-\143][\128-\191][\128-\191]",
}

--- The characters of a text; what XML cannot hold is "?".
local function characters(text)
  local list, at = {}, 1
  while at <= #text do
    local found = text:match("^[\32-\126]", at)
    for _, sequence in ipairs(SEQUENCES) do
      found = found or text:match(sequence, at)
    end
    if found == "\239\191\190" or found == "\239\191\191" then -- U+FFFE and U+FFFF
      list[#list + 1] = "?"
    else
      list[#list + 1] = found or "?"
    end
    at = at + (found and #found or 1)
  end
  return list
end

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local function escaped(list, last)
  return (table.concat(list, "", 1, last):gsub('[&<>"]', ENTITIES))
end

--- What fits into so many pixels; "" if that is too little to be read.
local function label(name, width, letter)
  local list = characters(name)
  local room = math.floor((width - 2 * PADDING) / (letter or LETTER))
  if #list <= room then
    return escaped(list)
  elseif room < LEAST_LETTERS then
    return ""
  end
  return escaped(list, room - 1) .. "…"
end

local function number(value)
  return (("%.2f"):format(value):gsub("0+$", ""):gsub("%.$", ""))
end

local function samples(count)
  return number(count) .. (count == 1 and " sample" or " samples")
end

-- --- the picture ---------------------------------------------------------------------------------

--- The same function has the same colour in each picture; what names no place in a file is grey: C
-- functions, the collector, the root.
local function colour_of(name)
  if not name:find ":" then
    return "g"
  end
  local hash = 0
  for i = 1, #name do
    hash = (hash * 31 + name:byte(i)) % 65521
  end
  return "c" .. hash % COLOURS
end

local function depth_of(node, scale)
  local depth = 0
  for _, child in ipairs(node.children) do
    if child.total * scale >= LEAST then
      depth = math.max(depth, depth_of(child, scale))
    end
  end
  return depth + 1
end

local STYLE = [[
text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#1f2328}
.head{font-weight:bold;font-size:14px}.note{fill:#59636e}
.page{fill:#fff}.g{fill:#d5d9de}g rect{stroke:#fff;stroke-width:.8}
.c0{fill:#f2c79b}.c1{fill:#f0d58c}.c2{fill:#f4b8a0}.c3{fill:#e9cfa6}
.c4{fill:#f6d3b8}.c5{fill:#e8c37e}.c6{fill:#f3c0b4}.c7{fill:#eddc9f}
@media(prefers-color-scheme:dark){text{fill:#f0f3f6}.note{fill:#9198a1}
.page{fill:#0d1117}.g{fill:#3d444d}g rect{stroke:#0d1117}
.c0{fill:#7a4a1e}.c1{fill:#6b5518}.c2{fill:#81402a}.c3{fill:#665033}
.c4{fill:#74502f}.c5{fill:#6f5220}.c6{fill:#7b453b}.c7{fill:#5f5a26}}
]]

--- Add a frame and those above it.
local function add(out, node, x, level, picture)
  local width = node.total * picture.scale
  local y = picture.bottom - (level + 1) * ROW
  local share = 100 * node.total / picture.total
  local text = label(node.name, width)
  out[#out + 1] = ('<g><title>%s: %s, %s %%%s</title><rect class="%s" x="%s" y="%d" width="%s" '
    .. 'height="%d"/>'):format(escaped(characters(node.name)), samples(node.total), number(share),
    node.self > 0 and ("; %s in itself"):format(number(node.self)) or "", colour_of(node.name),
    number(x), y, number(width), ROW)
  if text ~= "" then
    out[#out + 1] = ('<text x="%s" y="%d">%s</text>'):format(number(x + PADDING),
      y + (ROW + FONT) / 2 - 2, text)
  end
  out[#out + 1] = "</g>\n"
  for _, child in ipairs(node.children) do
    if child.total * picture.scale >= LEAST then
      add(out, child, x, level + 1, picture)
    end
    x = x + child.total * picture.scale
  end
end

--- Draw a tree.
-- @tparam table root what `read` returned
-- @tparam[opt] table given `title`, `width` in pixels
-- @treturn string an SVG
function M.draw(root, given)
  given = given or {}
  local width, title = given.width or WIDTH, given.title or "Flame graph"
  local scale = (width - 2 * MARGIN) / root.total
  local bottom = HEAD + depth_of(root, scale) * ROW
  local height = bottom + MARGIN
  local count = samples(root.total)
  local heading = label(title, width - 2 * MARGIN - (#count + 2) * LETTER, HEAD_LETTER)
  local out = {
    ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '
      .. 'role="img" aria-label="%s">\n'):format(width, height, width, height,
      escaped(characters(title))),
    "<style>\n", STYLE, "</style>\n",
    '<rect class="page" width="100%" height="100%"/>\n',
    ('<text class="head" x="%d" y="27">%s</text>\n'):format(MARGIN, heading),
    ('<text class="note" x="%d" y="27" text-anchor="end">%s</text>\n'):format(width - MARGIN,
      count),
  }
  add(out, root, MARGIN, 0, { scale = scale, total = root.total, bottom = bottom })
  out[#out + 1] = "</svg>\n"
  return table.concat(out)
end

-- --- the program ---------------------------------------------------------------------------------

local function fail(message, code)
  io.stderr:write("flamegraph: ", message, "\n", code == 2 and USAGE or "")
  os.exit(code)
end

local function main(args)
  local given, at = {}, 1
  while args[at] do
    local name = args[at]:match "^%-%-(%l+)$"
    local value = args[at + 1]
    if name == "help" then
      io.write(USAGE)
      return
    elseif name == "title" and value then
      given.title = value
    elseif name == "width" and tonumber(value) and tonumber(value) >= 100 then
      given.width = math.floor(tonumber(value))
    else
      fail(("'%s' is not understood"):format(args[at]), 2)
    end
    at = at + 2
  end
  local root, problem = M.read(io.read "*a")
  if not root then
    fail(problem, 1)
  end
  io.write(M.draw(root, given))
end

if arg and arg[0] and arg[0]:find "flamegraph%.lua$" then
  main(arg)
end

return M
