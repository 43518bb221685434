--- Statistics, and figures as text in columns.
-- @module text
local text = {}

--- Median, quartiles, 90th percentile, extremes and number of a list's samples.
function text.quantiles(list)
  local sorted = {}
  for i, v in ipairs(list) do sorted[i] = v end
  table.sort(sorted)
  local function at(q) return sorted[math.max(1, math.ceil(q * #sorted))] end
  return {
    median = at(0.5), q25 = at(0.25), q75 = at(0.75), p90 = at(0.9),
    min = sorted[1], max = sorted[#sorted], samples = #sorted,
  }
end

local SCALES = {
  time = { { 1, "s" }, { 1e-3, "ms" }, { 1e-6, "µs" }, { 1e-9, "ns" } },
  rate = { { 1e9, "G/s" }, { 1e6, "M/s" }, { 1e3, "k/s" }, { 1, "/s" } },
  bytes = { { 2 ^ 30, "GiB" }, { 2 ^ 20, "MiB" }, { 2 ^ 10, "KiB" }, { 1, "B" } },
  share = { { 1e-2, "%" } },
}

--- Three digits and a unit.
function text.format(value, unit)
  if not value then return "" end
  if value ~= value then return "none" end
  local scales = SCALES[unit]
  local scale = scales[#scales]
  for _, s in ipairs(scales) do
    if math.abs(value) >= s[1] * 0.9995 then
      scale = s
      break
    end
  end
  local v = value / scale[1]
  local digits = math.abs(v) >= 99.95 and 0 or math.abs(v) >= 9.995 and 1 or 2
  return ("%." .. digits .. "f %s"):format(v, scale[2])
end

local function width(s)
  return select(2, s:gsub("[^\128-\191]", ""))
end

--- Filled up with spaces to n characters: the text at the left, or at the right.
function text.left(s, n) return s .. (" "):rep(n - width(s)) end
function text.right(s, n) return (" "):rep(n - width(s)) .. s end

return text
