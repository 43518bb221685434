--- What another process cannot have: what the message calls it -> how one is made.
local treadle = require "treadle"

return {
  ["a channel"] = function() return treadle.channel() end,
  ["a mutex"] = function() return treadle.mutex() end,
  ["a rwlock"] = function() return treadle.rwlock() end,
  ["a semaphore"] = function() return treadle.semaphore(1) end,
  ["a barrier"] = function() return treadle.barrier(2) end,
  ["an event"] = function() return treadle.event() end,
  ["a counter"] = function() return treadle.counter() end,
  ["a shared table"] = function() return treadle.shared { { 1 } } end,
  ["a buffer that was made without the option 'process'"] = function()
    return treadle.buffer("int", 3)
  end,
}
