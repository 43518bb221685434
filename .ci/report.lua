-- busted's output handler for .ci/suite, under `treadle test`: a line for each file, of one with
-- failures what it printed, too. Adds "GOOD BAD SKIPPED" to the file that -Xoutput names.
return function(options)
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()
  local total = { good = 0, bad = 0, skipped = 0 }
  local file, started

  local function show(text)
    file.lines[#file.lines + 1] = "  | " .. tostring(text):gsub("\n$", ""):gsub("\n", "\n  | ")
  end

  local function is_outside(element)
    return element.descriptor ~= "it"
  end

  local function tell(element, message, trace)
    show(("not ok - %s"):format(handler.getFullName(element)))
    show(message)
    if trace and trace.traceback and trace.traceback ~= "" then
      show(trace.traceback)
    end
  end

  local function begin(name, at)
    file = { name = name, at = at, good = 0, bad = 0, skipped = 0, lines = {} }
  end

  local function finish(stop)
    local why = file.bad == 0 and file.good + file.skipped == 0 and "ran no test"
    file.bad = file.bad + (why and 1 or 0)
    if file.bad > 0 then
      io.write(("FAILED %s%s\n"):format(file.name, why and ": " .. why or ""),
        table.concat(file.lines, "\n"), #file.lines > 0 and "\n" or "")
    else
      io.write(("%5d ok  %-36s %5.1f s\n"):format(file.good + file.skipped, file.name,
        stop - file.at))
    end
    io.flush()
    for name in pairs(total) do
      total[name] = total[name] + file[name]
    end
    file = nil
  end

  function handler.fileStart(element)
    if not file then -- what failed before it began has begun it
      begin(element.name, element.starttick)
    end
    return nil, true
  end

  function handler.testEnd(_, _, status)
    if status == "success" then
      file.good = file.good + 1
    elseif status == "pending" then
      file.skipped = file.skipped + 1
    else
      file.bad = file.bad + 1
    end
    return nil, true
  end

  function handler.problem(element, _, message, trace)
    local is_alone = not file
    if is_alone then
      begin(element.name or "(no file)", busted.monotime())
    end
    if is_outside(element) then
      file.bad = file.bad + 1
    end
    tell(element, message, trace)
    if is_alone then
      finish(busted.monotime())
    end
    return nil, true
  end

  function handler.fileEnd(element)
    finish(element.endtick)
    return nil, true
  end

  function handler.exit()
    local out = assert(io.open(options.arguments[1], "a"))
    out:write(("%d %d %d\n"):format(total.good, total.bad, total.skipped))
    out:close()
    return nil, true
  end

  busted.subscribe({ "file", "start" }, handler.fileStart)
  busted.subscribe({ "file", "end" }, handler.fileEnd)
  busted.subscribe({ "test", "end" }, handler.testEnd)
  busted.subscribe({ "failure" }, handler.problem)
  busted.subscribe({ "error" }, handler.problem)
  busted.subscribe({ "exit" }, handler.exit)
  return handler
end
