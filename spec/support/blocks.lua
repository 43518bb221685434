--- The fenced blocks of a page of the documentation.
-- @param text of the page
-- @return a list of blocks: lists of lines with `line`, the page's number of the opening fence, and
-- `info`, what stands behind that fence
return function(text)
  local blocks, block, number = {}, nil, 0
  for line in (text .. "\n"):gmatch("(.-)\r?\n") do
    number = number + 1
    if not block then
      local indent, info = line:match("^(%s*)```(.*)$")
      if info then
        assert(indent == "", ("line %d: an indented block would not be checked"):format(number))
        block = { line = number, info = info }
      end
    elseif line:match("^```%s*$") then
      blocks[#blocks + 1] = block
      block = nil
    else
      block[#block + 1] = line
    end
  end
  assert(not block, "a block is not closed")
  return blocks
end
