--- Whether what several states have sent and received through one channel could have happened one
-- after the other: a check of recorded histories (linearisability of a bounded queue).
--
-- A record is `{ value, began, ended }`, times of treadle.now(); sends and receives that did
-- nothing are not recorded. Each value is sent once in a history.
local history = {}

--- One field of all records, sorted.
local function times(list, field)
  local sorted = {}
  for i, record in ipairs(list) do
    sorted[i] = record[field]
  end
  table.sort(sorted)
  return sorted
end

--- At no time were more sends over than receives begun, and `capacity`.
local function check_capacity(sends, recvs, capacity)
  local ends, begins = times(sends, "ended"), times(recvs, "began")
  local begun = 0
  for over, at in ipairs(ends) do
    while begun < #begins and begins[begun + 1] <= at do
      begun = begun + 1
    end
    if over - begun > capacity then
      return ("%d sends were over when %d receives had begun: the capacity is %d"):format(over,
        begun, capacity)
    end
  end
end

--- What was sent after another send was over is not received before that one's receive has begun.
local function check_order(pairs_)
  table.sort(pairs_, function(a, b) return a.sent.began < b.sent.began end)
  local by_end = {}
  for i, pair in ipairs(pairs_) do
    by_end[i] = pair
  end
  table.sort(by_end, function(a, b) return a.sent.ended < b.sent.ended end)
  -- of the sends that are over: the one whose receive begins last
  local last, k = nil, 1
  for _, pair in ipairs(pairs_) do
    while k <= #by_end and by_end[k].sent.ended < pair.sent.began do
      if not last or by_end[k].received.began > last.received.began then
        last = by_end[k]
      end
      k = k + 1
    end
    if last and pair.received.ended < last.received.began then
      return ("%s was sent before %s, and received after it"):format(tostring(last.sent.value),
        tostring(pair.sent.value))
    end
  end
end

--- @return nil if the history is possible, or what is wrong with it
function history.fault(sends, recvs, capacity)
  local sent, seen, both = {}, {}, {}
  for _, record in ipairs(sends) do
    sent[record.value] = record
  end
  for _, record in ipairs(recvs) do
    local value = record.value
    local from = sent[value]
    if not from then
      return ("%s was never sent"):format(tostring(value))
    elseif seen[value] then
      return ("%s was received twice"):format(tostring(value))
    elseif record.ended < from.began then
      return ("%s was received before it was sent"):format(tostring(value))
    elseif capacity == 0 and from.ended < record.began then
      return ("the send of %s was over before its receive began"):format(tostring(value))
    end
    seen[value] = true
    both[#both + 1] = { sent = from, received = record }
  end
  for _, record in ipairs(sends) do
    if not seen[record.value] then
      return ("%s was lost"):format(tostring(record.value))
    end
  end
  return check_capacity(sends, recvs, capacity) or check_order(both)
end

return history
