--- The values that the bench sends, one of each kind that figures are given for.
-- @module payloads
local ffi = require "ffi"

local MIB = 2 ^ 20

local function array(n)
  local list = {}
  for i = 1, n do list[i] = i + 0.5 end
  return list
end

-- 1,040 bytes as JSON: an order, three levels deep.
local function nested()
  local order = {
    id = 48213, placed = "2024-05-17T09:24:11Z", paid = true, total = 418.75, currency = "EUR",
    customer = {
      id = 9071, name = "Ada Lovelace", email = "ada@example.org", vip = false,
      address = {
        street = "12 St James's Square", city = "London", zip = "SW1Y 4JH", country = "GB",
      },
    },
    tags = { "priority", "gift", "fragile", "invoice" },
    items = {},
    history = {},
  }
  for i = 1, 6 do
    order.items[i] = {
      sku = ("TRD-%04d"):format(1000 + 17 * i), title = "warp beam no. " .. i,
      quantity = i, price = 11.25 * i, taxed = i % 2 == 0,
    }
  end
  for i = 1, 4 do
    order.history[i] = { at = 1715937851 + 3600 * i, state = "step " .. i, by = "clerk " .. i }
  end
  return order
end

local order = {
  { key = "number", name = "number", value = 42.5 },
  { key = "string100", name = "100-byte string", value = ("0123456789"):rep(10) },
  { key = "record", name = "table of 10 string keys", value = {
    id = 1, name = "Ada Lovelace", email = "ada@example.org", age = 36, score = 99.5,
    active = true, city = "London", zip = "SW1Y", admin = false, visits = 1042,
  } },
  { key = "array", name = "array of 1,000 doubles", value = array(1000) },
  { key = "nested", name = "nested table, 1 KiB JSON", value = nested() },
  { key = "same", name = "1 MiB string, same bytes", value = ("treadle "):rep(MIB / 8),
    in_flight = 32 },
  { key = "fresh", name = "1 MiB string, fresh bytes", task = "fresh", in_flight = 32 },
}

-- A string nobody has interned: a stamped copy of one buffer.
do
  local buffer = ffi.new("double[?]", MIB / 8)
  ffi.fill(buffer, MIB, 97)
  local stamp = 0
  for _, payload in ipairs(order) do
    payload.task = payload.task or "echo"
    payload.in_flight = payload.in_flight or 1000
    if payload.key == "fresh" then
      payload.make = function()
        stamp = stamp + 1
        buffer[0], buffer[MIB / 8 - 1] = stamp, stamp
        return ffi.string(buffer, MIB)
      end
    end
  end
end

return order
