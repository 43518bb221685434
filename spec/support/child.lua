--- A child process whose output arrives while it runs: luv beside treadle's waits.
local treadle = require "treadle"
local uv = require "luv"

--- Start a program.
-- @tparam string program
-- @tparam table args
-- @return the child: `out` and `err`, what it has printed; `is_silent`, once it has closed both;
-- `kill(signal)`; `ended`, a future of exit code and signal
return function(program, args)
  local child = { out = "", err = "", is_silent = false }
  local pipes = { out = uv.new_pipe(false), err = uv.new_pipe(false) }
  local resolve, handle
  child.ended, resolve = treadle.future()
  handle = assert(uv.spawn(program, { args = args, stdio = { nil, pipes.out, pipes.err } },
    function(code, signal)
      handle:close()
      resolve(code, signal)
    end))
  for name, pipe in pairs(pipes) do
    pipe:read_start(function(_, data)
      if data then
        child[name] = child[name] .. data
      else
        pipe:close()
        child.is_silent = pipes.out:is_closing() and pipes.err:is_closing()
      end
    end)
  end
  function child.kill(signal)
    if not handle:is_closing() then
      handle:kill(signal)
    end
  end
  return child
end
