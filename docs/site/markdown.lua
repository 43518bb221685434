--- Markdown as the pages here use it, to HTML: headings with the anchors that links name, lists,
-- tables, quotes, blocks of code.
local markdown = {}

local ESCAPES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

function markdown.escape(text)
  return (text:gsub('[&<>"]', ESCAPES))
end

local escape = markdown.escape

--- The anchor of a heading, as in spec/links_spec.lua.
function markdown.anchor(heading)
  heading = heading:gsub("%[([^%]]*)%]%([^)]*%)", "%1"):lower()
  return (heading:gsub("[^%w_%- \128-\255]", ""):gsub(" ", "-"))
end

--- One line's worth of text. `options.link(target)` gives an address, `options.code(text)` a link
-- for a span of code, or nil.
function markdown.inline(text, options, in_link)
  local kept = {}
  local function keep(html)
    kept[#kept + 1] = html
    return "\1" .. #kept .. "\2"
  end
  text = text:gsub("(`+)(.-)%1", function(_, code)
    code = code:gsub("^ (.*) $", "%1")
    local address = not in_link and options.code and options.code(code)
    local html = "<code>" .. escape(code) .. "</code>"
    return keep(address and ('<a href="%s">%s</a>'):format(escape(address), html) or html)
  end)
  text = text:gsub("!%[([^%]]*)%]%(([^)%s]+)%)", function(about, target)
    return keep(('<img src="%s" alt="%s">'):format(escape(options.link(target)), escape(about)))
  end)
  text = text:gsub("%[([^%]]*)%]%(([^)%s]+)%)", function(label, target)
    label = label:gsub("\1(%d+)\2", function(n) -- a span of code in a link is no link itself
      return (kept[tonumber(n)]:gsub("^<a [^>]*>(.*)</a>$", "%1"))
    end)
    local html = label:find("<code>", 1, true) and label or markdown.inline(label, options, true)
    return keep(('<a href="%s">%s</a>'):format(escape(options.link(target)), html))
  end)
  text = text:gsub("<(%a+://[^>]+)>", function(target)
    return keep(('<a href="%s">%s</a>'):format(escape(target), escape(target)))
  end)
  text = escape(text):gsub("%*%*(.-)%*%*", "<strong>%1</strong>")
  text = text:gsub("%f[%w*]%*(%S[^*]-)%*", "<em>%1</em>")
  local count
  repeat
    text, count = text:gsub("\1(%d+)\2", function(n) return kept[tonumber(n)] end)
  until count == 0
  return text
end

local KEYWORDS = {}
for name in ([[and break do else elseif end false for function if in local nil not or repeat return
  then true until while]]):gmatch("%l+") do
  KEYWORDS[name] = true
end

--- Lua with its words, strings and comments marked.
function markdown.lua(code)
  local out, at = {}, 1
  local function mark(class, text)
    out[#out + 1] = ('<span class="%s">%s</span>'):format(class, escape(text))
  end
  while at <= #code do
    local comment = code:match("^%-%-%[%[.-%]%]", at) or code:match("^%-%-[^\n]*", at)
    local text = code:match("^%[%[.-%]%]", at)
    local quote = code:match("^[\"']", at)
    local name = code:match("^[%a_][%w_]*", at)
    if comment then
      mark("comment", comment)
      at = at + #comment
    elseif text then
      mark("string", text)
      at = at + #text
    elseif quote then
      local stop = at + 1
      while stop <= #code and code:sub(stop, stop) ~= quote do
        stop = stop + (code:sub(stop, stop) == "\\" and 2 or 1)
      end
      mark("string", code:sub(at, stop))
      at = stop + 1
    elseif name then
      if KEYWORDS[name] then
        mark("keyword", name)
      else
        out[#out + 1] = name
      end
      at = at + #name
    else
      local rest = code:match("^[^%a_\"'%[%-]+", at) or code:sub(at, at)
      out[#out + 1] = escape(rest)
      at = at + #rest
    end
  end
  return table.concat(out)
end

--- The cells of a table's row; a bar in a span of code, or behind a backslash, is none.
local function cells_of(line)
  local cells, cell, is_code, at = {}, {}, false, 1
  line = line:gsub("^%s*|", ""):gsub("|%s*$", "")
  while at <= #line do
    local c = line:sub(at, at)
    if c == "\\" and line:sub(at + 1, at + 1) == "|" then
      at, c = at + 1, "|"
    elseif c == "`" then
      is_code = not is_code
    elseif c == "|" and not is_code then
      cells[#cells + 1], cell, c = table.concat(cell), {}, ""
    end
    cell[#cell + 1] = c
    at = at + 1
  end
  cells[#cells + 1] = table.concat(cell)
  for i, text in ipairs(cells) do
    cells[i] = text:match("^%s*(.-)%s*$")
  end
  return cells
end

local ITEM = { ul = "^(%s*)[-*]%s+(.*)", ol = "^(%s*)%d+%.%s+(.*)" }

local function item_of(line)
  for kind, pattern in pairs(ITEM) do
    local indent, text = line:match(pattern)
    if indent then
      return kind, #indent, text, #line - #text
    end
  end
end

local render

--- A list that begins at line i; the number of the line behind it.
local function render_list(lines, i, out, options)
  local kind, indent = item_of(lines[i])
  local first = tonumber(lines[i]:match("^%s*(%d+)%."))
  out[#out + 1] = first and first ~= 1 and ('<ol start="%d">'):format(first) or "<" .. kind .. ">"
  while lines[i] do
    local its_kind, its_indent, text, width = item_of(lines[i])
    if its_kind ~= kind or its_indent ~= indent then
      break
    end
    local own = { text }
    i = i + 1
    while lines[i] do
      local line = lines[i]
      local is_inside = line:match("^%s*") and #line:match("^%s*") > indent
      if line == "" then
        local following = lines[i + 1]
        if not following or #following:match("^%s*") <= indent or following == "" then
          break
        end
      elseif not is_inside and (item_of(line) or line:match("^[#|`>]") or own[#own] == "") then
        break
      end
      own[#own + 1] = line:gsub("^" .. (" "):rep(math.min(width, #line:match("^%s*"))), "")
      i = i + 1
    end
    local html = render(own, options)
    html = html:gsub("^<p>(.-)</p>", "%1", 1)
    out[#out + 1] = "<li>" .. html .. "</li>"
    if lines[i] == "" and lines[i + 1] and item_of(lines[i + 1]) == kind then
      i = i + 1
    end
  end
  out[#out + 1] = "</" .. kind .. ">"
  return i
end

function render(lines, options)
  local out, i, anchors = {}, 1, options.anchors
  local function begins_block(line)
    return line == "" or line:match("^#+ ") or line:match("^```") or line:match("^|")
      or line:match("^>") or line:match("^<!%-%-") or item_of(line)
  end
  while lines[i] do
    local line = lines[i]
    local level, heading = line:match("^(#+) (.*)")
    local fence = line:match("^%s*```(.*)")
    if line == "" then
      i = i + 1
    elseif level then
      local anchor = markdown.anchor(heading)
      local count = anchors[anchor]
      anchors[anchor] = (count or 0) + 1
      anchor = count and anchor .. "-" .. count or anchor
      out[#out + 1] = ('<h%d id="%s"><a href="#%s">%s</a></h%d>'):format(#level, anchor, anchor,
        markdown.inline(heading, options, true), #level)
      i = i + 1
    elseif fence then
      local code = {}
      i = i + 1
      while lines[i] and not lines[i]:match("^%s*```") do
        code[#code + 1] = lines[i]
        i = i + 1
      end
      i = i + 1
      local text = table.concat(code, "\n")
      text = fence:match("^lua") and markdown.lua(text) or escape(text)
      out[#out + 1] = "<pre><code>" .. text .. "</code></pre>"
    elseif line:match("^<!%-%-") then
      while lines[i] and not lines[i]:match("%-%->") do
        i = i + 1
      end
      i = i + 1
    elseif line:match("^|") and (lines[i + 1] or ""):match("^|[%s|:-]+$") then
      out[#out + 1] = "<table>"
      local head = cells_of(line)
      local tag = table.concat(head) ~= "" and "th" or nil
      i = tag and i or i + 2
      while lines[i] and lines[i]:match("^|") do
        out[#out + 1] = "<tr>"
        for _, cell in ipairs(cells_of(lines[i])) do
          out[#out + 1] = ("<%s>%s</%s>"):format(tag or "td", markdown.inline(cell, options),
            tag or "td")
        end
        out[#out + 1] = "</tr>"
        i = tag and i + 2 or i + 1
        tag = nil
      end
      out[#out + 1] = "</table>"
    elseif line:match("^>") then
      local own = {}
      while lines[i] and lines[i]:match("^>") do
        own[#own + 1] = lines[i]:gsub("^>%s?", "")
        i = i + 1
      end
      out[#out + 1] = "<blockquote>" .. render(own, options) .. "</blockquote>"
    elseif item_of(line) then
      i = render_list(lines, i, out, options)
    else
      local own = { line }
      i = i + 1
      while lines[i] and not begins_block(lines[i]) do
        own[#own + 1] = lines[i]
        i = i + 1
      end
      out[#out + 1] = "<p>" .. markdown.inline(table.concat(own, "\n"), options) .. "</p>"
    end
  end
  return table.concat(out, "\n")
end

--- A page's HTML.
function markdown.render(text, options)
  local lines = {}
  for line in (text .. "\n"):gmatch("(.-)\r?\n") do
    lines[#lines + 1] = line:match("^(.-)%s*$")
  end
  options.anchors = {}
  return render(lines, options)
end

return markdown
