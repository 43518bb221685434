--- docs/site: Markdown as the pages use it, and the definitions as modules for LDoc.
package.path = "docs/site/?.lua;" .. package.path
local definitions = require "definitions"
local markdown = require "markdown"

local function html(text)
  return markdown.render(text, {
    link = function(target) return target end,
    code = function(name) return name == "pool:close()" and "pool.html#close" or nil end,
  })
end

describe("the pages' Markdown", function()
  for _, case in ipairs {
    { "headings with anchors", "# A `b(c)`",
      '<h1 id="a-bc"><a href="#a-bc">A <code>b(c)</code></a></h1>' },
    { "paragraphs over lines", "one\ntwo\n\nthree", "<p>one\ntwo</p>\n<p>three</p>" },
    { "emphasis and code", "**a** *b* `*c*` d*e*f",
      "<p><strong>a</strong> <em>b</em> <code>*c*</code> d*e*f</p>" },
    { "what HTML would take for tags", "a < b & `<i>`",
      "<p>a &lt; b &amp; <code>&lt;i&gt;</code></p>" },
    { "links, with code in them", "[x](a.md#b), [`c()`](d.md)",
      '<p><a href="a.md#b">x</a>, <a href="d.md"><code>c()</code></a></p>' },
    { "addresses", "<https://example.org/a_b>",
      '<p><a href="https://example.org/a_b">https://example.org/a_b</a></p>' },
    { "names of the library", "`pool:close()` [`pool:close()`](x.md)",
      '<p><a href="pool.html#close"><code>pool:close()</code></a> '
      .. '<a href="x.md"><code>pool:close()</code></a></p>' },
    { "pictures", "![an \"a\"](a.svg)", '<p><img src="a.svg" alt="an &quot;a&quot;"></p>' },
    { "lists, and lists in lists", "- a\n  b\n- c\n  - d\n\ne",
      "<ul>\n<li>a\nb</li>\n<li>c\n<ul>\n<li>d</li>\n</ul></li>\n</ul>\n<p>e</p>" },
    { "numbers that begin elsewhere", "0. a\n1. b\n10. c",
      '<ol start="0">\n<li>a</li>\n<li>b</li>\n<li>c</li>\n</ol>' },
    { "a list with gaps", "- a\n\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>" },
    { "tables, with bars in code", "| a | b |\n|---|---|\n| `x|y` | z \\| |",
      "<table>\n<tr>\n<th>a</th>\n<th>b</th>\n</tr>\n<tr>\n<td><code>x|y</code></td>\n"
      .. "<td>z |</td>\n</tr>\n</table>" },
    { "tables without a head", "| | |\n|---|---|\n| a | b |",
      "<table>\n<tr>\n<td>a</td>\n<td>b</td>\n</tr>\n</table>" },
    { "blocks of text", "```text\n# <a>\n\n- b\n```",
      "<pre><code># &lt;a&gt;\n\n- b</code></pre>" },
    { "blocks of Lua", "```lua\nlocal s = \"if\\\"\" -- end\n```",
      '<pre><code><span class="keyword">local</span> s = '
      .. '<span class="string">&quot;if\\&quot;&quot;</span> '
      .. '<span class="comment">-- end</span></code></pre>' },
    { "no comments", "<!-- a\nb -->\nc", "<p>c</p>" },
    { "quotes", "> a\n> b", "<blockquote><p>a\nb</p></blockquote>" },
  } do
    it("knows " .. case[1], function()
      assert.equal(case[3], html(case[2]))
    end)
  end

  it("gives the second of two headings another anchor", function()
    assert.matches('id="a%-1"', html("# A\n## A"))
  end)
end)

describe("the definitions for editors, as modules", function()
  local modules = definitions.modules([[
---@meta treadle
-- A remark.

---@class treadle
---@field version string the number
local treadle = {}

---@alias treadle.word
---| "one" # the first

---@class treadle.thing_options: treadle.base
---@field on? fun(a: integer, ...): string, integer? who hears of it
---@field list? table<string, treadle.thing[]>

---A thing
---of two lines.
---@class treadle.thing<T>
---@field size integer
local thing = {}

---Use it.
---@generic T
---@param fn string|fun(x: T): ... what for
---@param ... any more
---@return T? first, integer second
---@return "a"|"b" why this one
function thing:use(fn, ...) end

---@param options? treadle.thing_options
---@return treadle.thing<integer>
function treadle.thing(options) end
]])
  local blank = "\194\160"

  it("are one for the functions, and one for each class with methods", function()
    local names = {}
    for name, text in pairs(modules) do
      names[#names + 1] = name
      assert.is_function(loadstring(text), text)
    end
    table.sort(names)
    assert.same({ "treadle", "treadle.thing" }, names)
  end)

  it("have functions with what they take and return", function()
    assert.matches("-- A thing\n-- of two lines.\n-- @classmod treadle.thing\n",
      modules["treadle.thing"], 1, true)
    assert.matches((([[
--- Use it.
-- @tparam string|fun(x:_T):_... fn what for
-- @tparam any ... more
-- @treturn T? first
-- @treturn integer second
-- @treturn "a"|"b" why this one
function thing:use(fn, ...) end
]]):gsub("_", blank)), modules["treadle.thing"], 1, true)
    assert.matches([[
-- @tparam[opt] treadle.thing_options options
-- @treturn treadle.thing<integer>
function treadle.thing(options) end
]], modules.treadle, 1, true)
  end)

  it("have tables of options, and of words", function()
    assert.matches((([[
--- Also what `treadle.base` has.
-- @table thing_options
-- @tfield[opt] fun(a:~integer,~...):~string,~integer? on who hears of it
-- @tfield[opt] table<string,~treadle.thing[]> list
]]):gsub("~", blank)), modules.treadle, 1, true)
    assert.matches("-- @table word\n-- @tfield string one the first\n", modules.treadle, 1, true)
    assert.matches("-- @table fields\n-- @tfield integer size\n", modules["treadle.thing"], 1,
      true)
  end)
end)
