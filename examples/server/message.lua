--- HTTP/1.1 messages as text: what a request's head says, and how a response's head is written.
-- Knows nothing of sockets. The rules: RFC 9110 and RFC 9112.
local message = {}

local MAX_FIELDS = 100
local MAX_LENGTH_DIGITS = 15 -- beyond it a double would round

local TOKEN = "[%w!#$%%&'*+%-.^_`|~]+"
local REQUEST_LINE = "^(" .. TOKEN .. ") ([!-~]+) HTTP/(%d)%.(%d)\r\n()"
local FIELD_NAME = "^(" .. TOKEN .. "):[ \t]*()"

-- A second one of these would leave open which of them counts.
local SINGLE = { host = true, ["content-length"] = true }

message.REASONS = {
  [200] = "OK", [204] = "No Content", [304] = "Not Modified", [400] = "Bad Request",
  [404] = "Not Found", [405] = "Method Not Allowed", [408] = "Request Timeout",
  [411] = "Length Required", [413] = "Content Too Large", [414] = "URI Too Long",
  [415] = "Unsupported Media Type", [417] = "Expectation Failed",
  [431] = "Request Header Fields Too Large", [500] = "Internal Server Error",
  [501] = "Not Implemented", [503] = "Service Unavailable", [504] = "Gateway Timeout",
  [505] = "HTTP Version Not Supported",
}

-- The text behind each %XX and, in a query, each "+"; nil if there is no byte behind a "%".
local function unescape(text, is_query)
  if text:gsub("%%%x%x", ""):find("%", 1, true) then
    return nil
  end
  if is_query then
    text = text:gsub("+", " ")
  end
  return (text:gsub("%%(%x%x)", function(digits)
    return string.char(tonumber(digits, 16))
  end))
end

local function parse_query(text)
  local query = {}
  for pair in text:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name, value = unescape(name, true), unescape(value, true)
    if not name or not value then
      return nil
    end
    query[name] = value
  end
  return query
end

-- The fields by their names in lower case; nil and a status if they are wrong. No pattern here can
-- go back over what it has read: a head costs what it is long.
local function parse_fields(head, at)
  local fields, count = {}, 0
  while at <= #head do
    local stop = head:find("\r\n", at, true)
    if not stop then
      return nil, 400
    end
    local line = head:sub(at, stop - 1)
    local name, from = line:match(FIELD_NAME)
    if not name or line:find("[%z\1-\8\10-\31\127]") then
      return nil, 400 -- folded lines, too
    end
    count = count + 1
    if count > MAX_FIELDS then
      return nil, 431
    end
    name = name:lower()
    local value = line:sub(from):match("^.*[^ \t]") or ""
    local before = fields[name]
    if before and SINGLE[name] then
      return nil, 400
    end
    fields[name] = before and before .. ", " .. value or value
    at = stop + 2
  end
  return fields
end

local function has_word(list, word)
  return list ~= nil
    and ("," .. list:lower():gsub("[ \t]", "") .. ","):find("," .. word .. ",", 1, true) ~= nil
end

-- How many bytes of body follow; nil and a status if that cannot be said.
local function body_length(fields, is_old)
  local coding, length = fields["transfer-encoding"], fields["content-length"]
  if coding then
    if length or is_old then
      return nil, 400 -- somebody on the way may read it differently
    end
    return nil, coding:lower() == "chunked" and 411 or 501
  elseif not length then
    return 0
  elseif not length:find("^%d+$") then
    return nil, 400
  elseif #length:match("^0*(.*)$") > MAX_LENGTH_DIGITS then
    return nil, 413
  end
  return tonumber(length, 10)
end

--- Read a request's head.
-- @tparam string head its lines, each with its CRLF, without the empty one that ends it
-- @return the request: `method`, `path` (decoded), `query` and `headers` (tables), `length` of the
-- body, `keep_alive`, `expects` (whether the client waits for "100 Continue"), `is_old` (HTTP/1.0);
-- or nil and the status to refuse it with
function message.parse(head)
  local method, target, major, minor, at = head:match(REQUEST_LINE)
  if not method then
    return nil, 400
  elseif major ~= "1" then
    return nil, 505
  end
  local fields, status = parse_fields(head, at)
  if not fields then
    return nil, status
  end
  local is_old = minor == "0"
  local length
  length, status = body_length(fields, is_old)
  if not length then
    return nil, status
  elseif not is_old and not fields.host then
    return nil, 400
  end
  local expects = fields.expect
  if expects and expects:lower() ~= "100-continue" then
    return nil, 417
  end
  local path, text = target:gsub("^[hH][tT][tT][pP]://[^/?]*", ""):match("^([^?]*)%??(.*)$")
  path = unescape(path == "" and "/" or path)
  local query = parse_query(text)
  if not path or not query or path:sub(1, 1) ~= "/" and path ~= "*" then
    return nil, 400
  end
  local connection, keep_alive = fields.connection, not is_old
  if has_word(connection, "close") then
    keep_alive = false
  elseif is_old then
    keep_alive = has_word(connection, "keep-alive")
  end
  return {
    method = method, path = path, query = query, headers = fields, length = length,
    keep_alive = keep_alive, expects = expects ~= nil and not is_old and length > 0,
    is_old = is_old,
  }
end

local date, date_second

local function http_date()
  local now = os.time()
  if now ~= date_second then
    date, date_second = os.date("!%a, %d %b %Y %H:%M:%S GMT", now), now
  end
  return date
end

--- Write a response's head.
-- @tparam number status
-- @tparam table headers by name
-- @tparam number length of the body
-- @tparam boolean keep_alive
-- @treturn string
function message.head(status, headers, length, keep_alive)
  local lines = {
    ("HTTP/1.1 %d %s"):format(status, message.REASONS[status] or ""),
    "Date: " .. http_date(),
  }
  for name, value in pairs(headers) do
    value = tostring(value)
    if value:find("[%z\r\n]") then
      error(("the value of '%s' has more than one line"):format(name), 2)
    end
    lines[#lines + 1] = name .. ": " .. value
  end
  if status ~= 204 and status ~= 304 then
    lines[#lines + 1] = ("Content-Length: %d"):format(length)
  end
  lines[#lines + 1] = keep_alive and "Connection: keep-alive" or "Connection: close"
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

return message
