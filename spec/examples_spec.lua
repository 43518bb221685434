--- Every example, run as a newcomer runs it: as a child process, from another folder.
local bit = require "bit"
local project = require "files"

local quote, line_of = project.quote, project.line_of

local TIMEOUT = 60 -- seconds that one child may take

local spec_folder = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
local root = line_of("cd '" .. spec_folder .. "/..' && pwd")
-- The build that this spec runs with: build, or build/VARIANT.
local build = line_of("dirname $(command -v treadle)")
local variant = build:match("/build/(%w+)$") or ""

describe("the examples", function()
  local scratch

  setup(function()
    scratch = line_of("mktemp -d")
  end)

  teardown(function()
    os.execute("rm -rf " .. quote(scratch))
  end)

  -- Run a shell command in the scratch folder; its output, error output and exit code.
  local function shell(command)
    local out, err = scratch .. "/.out", scratch .. "/.err"
    local line = "cd %s && { timeout -k 5 %d sh -c %s >%s 2>%s </dev/null; echo $?; }"
    local code = line_of(line:format(
      quote(scratch), TIMEOUT, quote(command), quote(out), quote(err)))
    return project.read(out), project.read(err), tonumber(code)
  end

  local function command_line(program, script, ...)
    local words = { program, quote(script) }
    for _, argument in ipairs { ... } do
      words[#words + 1] = quote(tostring(argument))
    end
    return "exec " .. table.concat(words, " ")
  end

  local treadle = quote(build .. "/treadle")

  local function run(name, ...)
    return shell(command_line(treadle, root .. "/examples/" .. name, ...))
  end

  -- Run an example that has to succeed, silently on stderr; its output.
  local function output_of(name, ...)
    local out, err, code = run(name, ...)
    assert.are.same({ "", 0 }, { err, code })
    return out
  end

  -- Run an example whose arguments are wrong; its error output.
  local function usage_error_of(name, ...)
    local out, err, code = run(name, ...)
    assert.are.same({ "", 2 }, { out, code })
    return err
  end

  -- Copy the examples, change one of them and run that.
  local function run_changed(name, from, to, ...)
    local folder = scratch .. "/changed"
    os.execute(("rm -rf %s && cp -r %s %s"):format(
      quote(folder), quote(root .. "/examples"), quote(folder)))
    local source = project.read(folder .. "/" .. name)
    local first, last = source:find(from, 1, true)
    assert(first and not source:find(from, last, true), "the text to change is not there once")
    project.write(folder .. "/" .. name, source:sub(1, first - 1) .. to .. source:sub(last + 1))
    return shell(command_line(treadle, folder .. "/" .. name, ...))
  end

  local function folder_of(name, files)
    local folder = scratch .. "/" .. name
    os.execute("mkdir -p " .. quote(folder))
    for path, data in pairs(files) do
      local parent = (folder .. "/" .. path):match("^(.*)/")
      os.execute("mkdir -p " .. quote(parent))
      project.write(folder .. "/" .. path, data)
    end
    return folder
  end

  local function sorted_lines(text)
    local lines = {}
    for line in text:gmatch("[^\n]*\n") do
      lines[#lines + 1] = line
    end
    table.sort(lines)
    return table.concat(lines)
  end

  -- What sha256sum says of all files below a folder, as sorted lines.
  local function sums_of(folder)
    return sorted_lines((shell(("find %s -type f -exec sha256sum {} +"):format(quote(folder)))))
  end

  -- The checks are written anew, one bit and one byte at a time: they must not share the errors
  -- of examples/png.lua.
  local function crc32(data)
    local crc = -1
    for i = 1, #data do
      crc = bit.bxor(crc, data:byte(i))
      for _ = 1, 8 do
        local lowest = bit.band(crc, 1)
        crc = bit.rshift(crc, 1)
        if lowest == 1 then
          crc = bit.bxor(crc, 0xEDB88320)
        end
      end
    end
    return bit.tobit(bit.bnot(crc))
  end

  local function adler32(data)
    local a, b = 1, 0
    for i = 1, #data do
      a = (a + data:byte(i)) % 65521
      b = (b + a) % 65521
    end
    return bit.bor(bit.lshift(b, 16), a)
  end

  local function big_endian(data, at)
    local a, b, c, d = data:byte(at, at + 3)
    return bit.bor(bit.lshift(a, 24), bit.lshift(b, 16), bit.lshift(c, 8), d)
  end

  local function chunks_of(data)
    assert.are.equal("\137PNG\r\n\26\n", data:sub(1, 8))
    local chunks, at = {}, 9
    while at <= #data do
      local size, kind = big_endian(data, at), data:sub(at + 4, at + 7)
      assert.are.equal(crc32(data:sub(at + 4, at + 7 + size)), big_endian(data, at + 8 + size))
      chunks[#chunks + 1] = { kind = kind, data = data:sub(at + 8, at + 7 + size) }
      at = at + 12 + size
    end
    return chunks
  end

  -- The bytes in a zlib stream of stored blocks.
  local function inflate_stored(stream)
    assert.are.equal(0, (stream:byte(1) * 256 + stream:byte(2)) % 31)
    assert.are.equal(8, stream:byte(1) % 16)
    local parts, at, is_last = {}, 3, false
    while not is_last do
      local head, a, b, c, d = stream:byte(at, at + 4)
      assert.are.equal(0, bit.rshift(head, 1)) -- the type of the block: stored
      is_last = head == 1
      local size = a + b * 256
      assert.are.equal(65535 - size, c + d * 256)
      parts[#parts + 1] = stream:sub(at + 5, at + 4 + size)
      at = at + 5 + size
    end
    local data = table.concat(parts)
    assert.are.equal(adler32(data), big_endian(stream, at))
    assert.are.equal(#stream, at + 3)
    return data
  end

  -- The pixels of a picture, which is checked from its first to its last byte, as strings.
  local function pixels_of(path, width, height)
    local chunks = chunks_of(project.read(path))
    assert.are.same({ "IHDR", "IDAT", "IEND" },
      { chunks[1].kind, chunks[2].kind, chunks[3].kind })
    assert.are.equal(3, #chunks)
    local header = chunks[1].data
    assert.are.same({ width, height }, { big_endian(header, 1), big_endian(header, 5) })
    assert.are.equal("\8\2\0\0\0", header:sub(9))
    local rows = inflate_stored(chunks[2].data)
    assert.are.equal(height * (width * 3 + 1), #rows)
    local pixels = {}
    for y = 0, height - 1 do
      local start = y * (width * 3 + 1) + 1
      assert.are.equal(0, rows:byte(start))
      for x = 0, width - 1 do
        pixels[#pixels + 1] = rows:sub(start + 1 + x * 3, start + 3 + x * 3)
      end
    end
    return pixels
  end

  -- Check a picture; how many different pixels it has.
  local function check_picture(path, width, height)
    local colours, count = {}, 0
    for _, pixel in ipairs(pixels_of(path, width, height)) do
      if not colours[pixel] then
        colours[pixel], count = true, count + 1
      end
    end
    return count
  end

  it("run under plain luajit too, with the environment that make env prints", function()
    local folder = folder_of("plain", { ["a.txt"] = "one two" })
    local lines = {
      { "hello.lua", "", "^2178309\n$" },
      { "fib_nested.lua", "26", "fib%(26%) = 121393" },
      { "errors.lua", "", "a closed pool takes no calls" },
      { "luv_server.lua", "", "all answers are right\n$" },
      { "mandelbrot.lua", "plain.png 32 24 1000", "every byte agrees" },
      { "wordcount.lua", quote(folder), "every count agrees" },
      { "bytepairs.lua", "pairs.png " .. quote(folder), "every byte agrees" },
      { "kmeans.lua", "plain.png 32 24 3", "every byte agrees" },
      { "sort.lua", "--count 30000", "agree in every byte" },
      { "stream.lua", "", "lines, the longest is line %d+ with %d+ bytes\n$" },
    }
    for _, program in ipairs(lines) do
      local script, arguments, expected = unpack(program)
      local line = 'eval "$(make -s -C %s env VARIANT=%s)" && exec luajit %s %s'
      local out, err, code = shell(line:format(
        quote(root), variant, quote(root .. "/examples/" .. script), arguments))
      assert.are.same({ script, "", 0 }, { script, err, code })
      assert.matches(expected, out)
    end
  end)

  it("stream what they find in files", function()
    local folder = folder_of("streamed", {
      ["a.txt"] = "one\nlongest line\nthree\nno end of a line here",
      ["b.txt"] = "",
      ["c.txt"] = ("x"):rep(200000) .. "\n" .. ("y\n"):rep(70000),
    })
    local paths = {}
    for _, name in ipairs { "a", "b", "c" } do
      paths[#paths + 1] = ("%s/%s.txt"):format(folder, name)
    end
    local out, err, code = shell(command_line("treadle", root .. "/examples/stream.lua",
      unpack(paths)))
    assert.are.same({ "", 0 }, { err, code })
    assert.are.equal(paths[1] .. ": 3 lines, the longest is line 2 with 12 bytes\n"
      .. paths[2] .. ": 0 lines, the longest is line 0 with 0 bytes\n"
      .. paths[3] .. ": 70001 lines, the longest is line 1 with 200000 bytes\n", out)
  end)

  it("hash under plain luajit too", function()
    local folder = folder_of("plain", { ["a.txt"] = "one two" })
    local line = 'eval "$(make -s -C %s env VARIANT=%s)" && exec luajit %s %s'
    local out, err, code = shell(line:format(
      quote(root), variant, quote(root .. "/examples/pipeline.lua"), quote(folder)))
    assert.are.equal(0, code)
    assert.are.equal(sums_of(folder), out)
    assert.matches("^pipeline: 1 files, 0 unreadable, 7 bytes in [%d.]+ s by %d+ hashing tasks\n$",
      err)
  end)

  it("run from their own folder and by a relative path", function()
    local out, err, code = shell(("cd %s && ..%s/treadle wordcount.lua %s"):format(
      quote(root .. "/examples"), quote(build:sub(#root + 1)),
      quote(folder_of("relative", { ["a.txt"] = "one two" }))))
    assert.are.same({ "", 0 }, { err, code })
    assert.matches("every count agrees", out)
  end)

  describe("hello", function()
    it("prints the sum that two tasks computed", function()
      assert.are.equal("2178309\n", output_of("hello.lua"))
    end)
  end)

  describe("fib_nested", function()
    it("gets the right number from one thread and from all, without a deadlock", function()
      local out = output_of("fib_nested.lua", 36)
      local _, count = out:gsub("fib%(36%) = 14930352 ", "")
      assert.are.equal(3, count)
      assert.matches("\n1 thread ", out)
      local parts = tonumber(out:match("cut into (%d+) parts"))
      assert.is_true(parts > 50)
    end)

    it("refuses an N that it cannot compute", function()
      for _, argument in ipairs { "x", "-1", "1.5", "46", "--help" } do
        assert.matches("N has to be a whole number", usage_error_of("fib_nested.lua", argument))
      end
    end)
  end)

  describe("errors", function()
    it("shows each kind of error with what arrives of it", function()
      local out = output_of("errors.lua")
      local function has(pattern)
        assert.matches(pattern, out)
      end
      has("false\ttask\t[^\n]*division by zero\nfalse\ttask\t[^\n]*division by zero\ntrue\t0.25\n")
      has("false\ttask\t404\tmoon\n")
      has("false\tdig\tworker %d+\n")
      has("solid rock")
      has("errors%.lua:%d+: in function") -- the worker's frames
      has("false\ttimeout\n")
      has("true\tlate\n")
      has("false\tpayload\t[^\n]*arguments%[1%]%.items%[2%]")
      has("false\t[^\n]*devide[^\n]*divide") -- names the tasks that there are
      has("caught: task\n")
      has("false\tclosed\n$")
    end)
  end)

  describe("luv_server", function()
    it("answers every line of its client, ticks meanwhile, and ends by itself", function()
      local out = output_of("luv_server.lua")
      assert.matches("client: +1000000 %-> 78498\n", out)
      assert.matches("client: +10 %-> 4\n", out)
      assert.matches("client: +ten %-> is no number\n", out)
      assert.matches("a luv timer ticked [1-9]%d* times", out)
      assert.matches("then read '%-%-%- The tasks of luv_server%.lua", out)
      assert.matches("all answers are right\n$", out)
    end)
  end)

  describe("wordcount", function()
    local function number(out, label)
      return tonumber((out:match(label .. " +([%d,]+)"):gsub(",", "")))
    end

    it("counts what is text, once, and tells what it skipped", function()
      local folder = folder_of("words", {
        ["one.txt"] = "the cat and The dog",
        ["deep/er/two words.txt"] = "THE end\n",
        ["deep/new\nline's.txt"] = "caf\195\169 cat's",
        ["empty"] = "",
        ["binary"] = "the the\0the",
        ["packed.gz"] = "\31\139\8\0\0\0\0\0\0\3",
        ["secret"] = "unreadable",
      })
      os.execute(("cd %s && chmod 0 secret && ln -s . loop && ln -s ../.. deep/er/up"
        .. " && ln -s one.txt link && ln -s nowhere dangling && mkfifo pipe"):format(quote(folder)))
      local is_root = line_of("id -u") == "0" -- who may read everything
      local out = output_of("wordcount.lua", "--threads", 2, folder, folder .. "/deep")
      assert.are.equal(is_root and 4 or 3, number(out, "files"))
      assert.matches(("3 empty or not text, %d unreadable"):format(is_root and 0 or 1), out)
      assert.are.equal(is_root and 11 or 10, number(out, "\nwords"))
      assert.are.equal(is_root and 8 or 7, number(out, "distinct words"))
      assert.matches(" 1%. the +3\n 2%. cat +2\n", out)
      assert.matches("caf\195\169 +1\n", out)
      assert.matches("every count agrees with the sequential one\n$", out)
    end)

    it("counts a large file exactly although it is cut in the middle of words", function()
      local line = "abcdefghijklmnopqrstuvwxyz " .. ("x"):rep(5000) .. "\n"
      local folder = folder_of("large", { ["large.txt"] = line:rep(2000) })
      local out = output_of("wordcount.lua", folder)
      assert.are.equal(#line * 2000, number(out, "bytes"))
      assert.are.equal(4000, number(out, "\nwords"))
      assert.are.equal(2, number(out, "distinct words"))
      assert.matches("every count agrees", out)
    end)

    it("gives each word to one piece wherever a file is cut", function()
      project.write(scratch .. "/cuts.txt",
        "  one, two\nthree\195\169 four" .. ("z"):rep(3000) .. " end")
      project.write(scratch .. "/cuts.lua", [[
        local example, path = ...
        package.loaded.treadle = { is_main = false }
        local tasks = assert(loadfile(example))()
        local size = #io.open(path, "rb"):read("*a")
        local whole, words = tasks.count { { path = path, first = 0, last = size } }
        assert(words == 5 and whole.one == 1 and whole["end"] == 1)
        for a = 0, size do
          for b = a, math.min(size, a + 3) do
            local counts, n = tasks.count {
              { path = path, first = 0, last = a },
              { path = path, first = a, last = b },
              { path = path, first = b, last = size },
            }
            assert(n == words, "number of words, cut at " .. a .. " and " .. b)
            for word, count in pairs(counts) do
              assert(whole[word] == count, "the word " .. word .. ", cut at " .. a .. " and " .. b)
            end
          end
        end
      ]])
      local out, err, code = shell(command_line("luajit", scratch .. "/cuts.lua",
        root .. "/examples/wordcount.lua", scratch .. "/cuts.txt"))
      assert.are.same({ "", "", 0 }, { out, err, code })
    end)

    it("says which count differs and exits with 1 when the answers differ", function()
      local folder = folder_of("differ", { ["a.txt"] = "one two two" })
      local out, err, code = run_changed("wordcount.lua",
        "words = words + 1\n", "words = words + 1\n"
          .. "if not treadle.is_main and word == 'two' then counts[word] = counts[word] + 1 end\n",
        folder)
      assert.are.equal(1, code)
      assert.matches('the answers differ: "two" 4 times in parallel, 2 times sequentially', err)
      assert.is_nil(out:find("every count agrees", 1, true))
    end)

    it("draws bars on a terminal, wipes them at the end, and draws none in a pipe", function()
      local folder = folder_of("bar", { ["a.txt"] = ("some words "):rep(20000) })
      local command = command_line(treadle, root .. "/examples/wordcount.lua", folder)
      local out, _, code = shell(("script -qec %s /dev/null"):format(quote(command)))
      assert.are.equal(0, code)
      local bar = "\r%s %%[%%.+%%]   0 %%%%.*\r%s %%[#+%%] 100 %%%%\r\27%%[K"
      assert.matches("^\rfinding text files %.%.%.\r\27%[K" .. bar:format("counting", "counting")
        .. bar:format("checking", "checking") .. "files ", out)
      assert.is_nil(output_of("wordcount.lua", folder):find("[\r\27]"))
    end)

    it("has nothing to count in a folder without text, and says so", function()
      local folder = folder_of("none", { ["zero"] = "\0" })
      assert.are.equal("no text files below " .. folder .. "\n", output_of("wordcount.lua", folder))
    end)

    it("prints its usage on request", function()
      assert.matches("^usage: treadle wordcount%.lua", output_of("wordcount.lua", "--help"))
    end)

    it("refuses wrong arguments by name, with its usage", function()
      local file = folder_of("file", { ["a.txt"] = "a" }) .. "/a.txt"
      local cases = {
        { "unknown option '%-%-hlep'", "--hlep" },
        { "cannot open folder '/no/such/folder' %(.*ENOENT", "/no/such/folder" },
        { "a%.txt' is not a folder", file },
        { "needs a number of workers, got '0'", "--threads", "0" },
        { "needs a number of workers, got 'two'", "--threads", "two" },
        { "needs a number of workers, got 'nothing'", "--threads" },
      }
      for _, case in ipairs(cases) do
        local err = usage_error_of("wordcount.lua", unpack(case, 2))
        assert.matches("^wordcount: .*" .. case[1] .. ".*\nusage: treadle wordcount%.lua", err)
      end
    end)
  end)

  describe("mandelbrot", function()
    it("writes a valid PNG of the size that was asked for", function()
      local out = output_of("mandelbrot.lua", "a.png", 163, 141, 1500)
      assert.matches("a%.png, 163 x 141 pixels\n", out)
      assert.matches("every byte agrees with the sequential picture\n$", out)
      assert.is_true(check_picture(scratch .. "/a.png", 163, 141) > 1000)
    end)

    it("is not the only one: bytepairs draws files of any length", function()
      local several = folder_of("pairs", {
        ["a.txt"] = "x", ["b.txt"] = ("abcab\255\1"):rep(3000), ["c.txt"] = "",
      })
      local out = output_of("bytepairs.lua", "pairs.png", several)
      assert.matches("21001 bytes in 2 files", out)
      assert.matches("every byte agrees with the sequential picture\n$", out)
      assert.is_true(check_picture(scratch .. "/pairs.png", 768, 768) > 10)
      assert.matches("there is no folder", usage_error_of("bytepairs.lua", "/no/folder"))
      assert.matches("unknown option", usage_error_of("bytepairs.lua", "--wide"))
    end)

    it("writes a picture of one pixel", function()
      output_of("mandelbrot.lua", "one.png", 1, 1, 1)
      assert.are.equal(1, check_picture(scratch .. "/one.png", 1, 1))
    end)

    it("writes into the folder build where there is one", function()
      output_of("mandelbrot.lua", 8, 9)
      check_picture(scratch .. "/mandelbrot.png", 8, 9)
      os.execute("mkdir " .. quote(scratch .. "/build"))
      output_of("mandelbrot.lua", 9, 8)
      check_picture(scratch .. "/build/mandelbrot.png", 9, 8)
    end)

    it("exits with 1 when the pictures differ", function()
      local out, err, code = run_changed("mandelbrot.lua",
        "return table.concat(bands)", "return table.concat(bands):upper()", "b.png", 40, 30)
      assert.are.equal(1, code)
      assert.matches("picture differ\n$", err)
      assert.is_nil(out:find("every byte agrees", 1, true))
    end)

    it("prints its usage on request", function()
      assert.matches("^usage: treadle mandelbrot%.lua", output_of("mandelbrot.lua", "--help"))
    end)

    it("refuses wrong arguments by name, with its usage", function()
      local cases = {
        { "unknown option '%-%-hlep'", "--hlep" },
        { "'a%.gif' does not end in %.png", "a.gif" },
        { "WIDTH without HEIGHT", "100" },
        { "WIDTH has to be a whole number from 1 to 10000, got '0'", "0", "100" },
        { "HEIGHT has to be a whole number from 1 to 10000, got '1%.5'", "100", "1.5" },
        { "ITERATIONS has to be a whole number .*, got 'many'", "100", "100", "many" },
        { "one argument too many: '5'", "a.png", "2", "3", "4", "5" },
        { "cannot write /no/such/a%.png: No such file", "/no/such/a.png" },
      }
      for _, case in ipairs(cases) do
        local err = usage_error_of("mandelbrot.lua", unpack(case, 2))
        assert.matches("^mandelbrot: .*" .. case[1] .. ".*\nusage: treadle mandelbrot%.lua", err)
      end
    end)
  end)

  describe("kmeans", function()
    it("gives each pixel the nearest colour, and each colour the mean of its pixels", function()
      local width, height, count = 61, 43, 5 -- so that the last band is a part of one
      local out = output_of("kmeans.lua", "few.png", width, height, count)
      assert.matches("few%.png, 61 x 43 pixels\n", out)
      assert.matches("every byte agrees with the sequential picture\n$", out)
      local _, _, code = run_changed("kmeans.lua",
        "\n    recolour(job, colours, first, last)", "", "all.png", width, height, count)
      assert.are.equal(0, code)
      local few = pixels_of(scratch .. "/few.png", width, height)
      local all = pixels_of(scratch .. "/all.png", width, height)
      local colours, distinct = {}, 0
      for _, colour in ipairs(few) do
        if not colours[colour] then
          colours[colour], distinct = { n = 0, 0, 0, 0 }, distinct + 1
        end
      end
      assert.are.equal(count, distinct)
      local function distance(a, b)
        local sum = 0
        for channel = 1, 3 do
          sum = sum + (a:byte(channel) - b:byte(channel)) ^ 2
        end
        return sum
      end
      local squares = 0
      for i, colour in ipairs(few) do
        local own, sums = distance(all[i], colour), colours[colour]
        for other in pairs(colours) do
          assert.is_true(own <= distance(all[i], other))
        end
        for channel = 1, 3 do
          sums[channel] = sums[channel] + all[i]:byte(channel)
        end
        sums.n = sums.n + 1
        squares = squares + own
      end
      for colour, sums in pairs(colours) do
        for channel = 1, 3 do
          assert.are.equal(colour:byte(channel), math.floor(sums[channel] / sums.n + 0.5))
        end
      end
      local rounds, after, before = out:match(
        "colours     5, after (%d+) rounds; mean squared error ([%d.]+), at first ([%d.]+)\n")
      assert.are.equal(("%.1f"):format(squares / #few), after)
      assert.is_true(tonumber(before) > tonumber(after) and tonumber(rounds) > 1)
    end)

    it("makes a picture of one pixel, of more colours than pixels, and of one colour", function()
      output_of("kmeans.lua", "one.png", 1, 1, 1)
      assert.are.equal(1, check_picture(scratch .. "/one.png", 1, 1))
      output_of("kmeans.lua", "many.png", 9, 2, 256)
      local count = check_picture(scratch .. "/many.png", 9, 2)
      assert.is_true(count > 1 and count <= 18)
      output_of("kmeans.lua", "mean.png", 20, 30, 1)
      assert.are.equal(1, check_picture(scratch .. "/mean.png", 20, 30))
    end)

    it("exits with 1 when the pictures differ", function()
      local out, err, code = run_changed("kmeans.lua",
        "return job.pixels:string(), calls", "return job.pixels:fill(7):string(), calls",
        "b.png", 40, 30)
      assert.are.equal(1, code)
      assert.matches("picture differ\n$", err)
      assert.is_nil(out:find("every byte agrees", 1, true))
    end)

    it("ends, and says why, when a worker fails before it comes to the barrier", function()
      local out, err, code = run_changed("kmeans.lua", "local colours, errors, round =",
        "if treadle.worker and treadle.worker.id == 1 then error 'no luck' end\n"
          .. "  local colours, errors, round =", "b.png", 40, 30)
      assert.are.same({ "", 1 }, { out, code })
      assert.matches("no luck", err)
    end)

    it("refuses wrong arguments by name, with its usage", function()
      local cases = {
        { "unknown option '%-%-hlep'", "--hlep" },
        { "'a%.gif' does not end in %.png", "a.gif" },
        { "WIDTH without HEIGHT", "100" },
        { "COLOURS has to be a whole number from 1 to 256, got '257'", "100", "100", "257" },
        { "one argument too many: '5'", "a.png", "2", "3", "4", "5" },
        { "cannot write /no/such/a%.png: No such file", "/no/such/a.png" },
      }
      for _, case in ipairs(cases) do
        local err = usage_error_of("kmeans.lua", unpack(case, 2))
        assert.matches("^kmeans: .*" .. case[1] .. ".*\nusage: treadle kmeans%.lua", err)
      end
      assert.matches("^usage: treadle kmeans%.lua", output_of("kmeans.lua", "--help"))
    end)
  end)

  describe("shared_workers", function()
    --- What it says of these sizes, as a set of lines; the rules of their order are checked.
    local function check(fib, primes, tribonacci, digits, values)
      local out = output_of("shared_workers.lua", fib, primes, tribonacci, digits)
      local names = { ("fib(%d)"):format(fib), ("findPrimesUpTo(%d)"):format(primes),
        ("tribonacci(%d)"):format(tribonacci), ("estimatePi(%d)"):format(digits) }
      names[5] = names[4] .. " #2"
      local first, rest, seconds = out:match(
        "^Finished First: ([^\n]*)\n\n(.*\n)\nDONE! 5\n\n\nScript runtime: (%d+%.%d%d%d) sec\n$")
      assert.is_truthy(tonumber(seconds), out)
      assert.are.equal(first:gsub(" = ", " "), rest:match("^[^\n]*"))
      local expected, order = {}, {}
      for i, name in ipairs(names) do
        expected[i] = name .. " " .. values[i] .. "\n"
        order[i] = rest:find(expected[i], 1, true)
      end
      assert.are.equal(sorted_lines(table.concat(expected)), sorted_lines(rest))
      assert.is_true(order[4] < order[5])
    end

    it("computes with four threads that live as long as they are needed", function()
      check(20, 1000, 12, 3, { "6765", "168", "230", "6.283083971995565", "9.424625957993348" })
    end)

    it("finds the digits of pi that more terms do not change", function()
      check(25, 170000, 20, 17,
        { "75025", "15497", "30122", "6.283185307179574", "9.424777960769362" })
    end)

    it("refuses wrong arguments with its usage", function()
      for _, arguments in ipairs { { "x" }, { 0 }, { 1.5 }, { 1, 2, 3, 4, 5 } } do
        assert.matches("^shared_workers: wrong argument '.*'\nusage: treadle shared_workers%.lua",
          usage_error_of("shared_workers.lua", unpack(arguments)))
      end
    end)
  end)

  describe("chaining", function()
    --- The lines of one function, without the percentage.
    local function chain_of(name, state, a, b, c, d, value)
      local form = "%s: getState():  %d\n%s: add(%d, %d):  %d\n%s: getState(%d, %d):  %d\n"
      return form:format(name, state, name, a, b, a + b, name, a, b, state + 1)
        .. form:match("\n(.*)$"):format(name, c, d, c + d, name, c, d, state + 2)
        .. ("%s: fib():  %d\n"):format(name, value)
    end

    it("carries the state of its threads on, and says how far it is", function()
      local out = output_of("chaining.lua", 12, 0.2)
      local chains = {
        A = chain_of("A", 0, 1, 2, 3, 4, 144), B = chain_of("B", 0, 5, 6, 7, 8, 89),
        C = chain_of("C", 0, 9, 10, 11, 12, 55), B2 = chain_of("B2", 2, 15, 16, 17, 18, 34),
        C2 = chain_of("C2", 0, 19, 110, 111, 112, 55),
      }
      local found, order, reports, available, last = {}, {}, {}, {}, nil
      for line in out:gmatch("([^\n]*)\n") do
        local name, percent = line:match("^(%u2?): "), line:match("^([%d.]+) %%$")
        local free = line:match("^Available Thread:  (%a+)$")
        if name then
          found[name] = (found[name] or "") .. line .. "\n"
        elseif free then -- three fit: "No", unless one has ended meanwhile
          available[#available + 1] = free
          assert.is_true(free == (#available == 1 and "Yes" or "No") or #order > 0, out)
        elseif percent then -- what had completed before, of those added then: that one is, too
          assert.matches("^%u2?: fib%(%):", last)
          local fits = false
          for total = #order + 1, 5 do
            fits = fits or math.abs(100 * #order / total - tonumber(percent)) < 0.001
          end
          assert.is_true(fits, line)
          order[#order + 1] = last:match("^(%u2?)")
        elseif line:find("^Done") then
          local done, meta = line:match("^Done (%u2?)! Success (.*)$")
          assert.are.equal(done == "A" and "{ meta: 1 }" or "undefined", meta)
          reports[#reports + 1] = done
        elseif line:find("^DONE!") then -- the queue is empty: all, in the order of their ends
          assert.are.same(order, reports)
          assert.are.equal("DONE! " .. #order, line)
          reports = {}
        end
        last = line
      end
      assert.are.same(chains, found)
      assert.are.equal(2, #available)
      assert.are.equal(5, #order)
      assert.is_true(out:find("B: fib", 1, true) < out:find("B2: getState():", 1, true))
      assert.matches("\nDONE! 5\n\n\nScript runtime: %d+%.%d%d%d sec\n\n\n$", out)
    end)

    it("refuses wrong arguments with its usage", function()
      for _, arguments in ipairs { { "x" }, { 3 }, { 12, -1 }, { 12, "y" }, { 12, 1, 1 } } do
        assert.matches("^chaining: wrong arguments\nusage: treadle chaining%.lua",
          usage_error_of("chaining.lua", unpack(arguments)))
      end
    end)
  end)

  describe("pipeline", function()
    local BLOCK = 2 ^ 18 -- bytes that its reader sends at a time

    local function files_of_many_sizes()
      local files = {
        ["new\nline"] = "1", ["back\\slash"] = "2", ["re\rturn"] = "3", ["a b"] = "4",
      }
      for _, size in ipairs { 0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, BLOCK - 1, BLOCK, BLOCK + 1,
        6 * BLOCK + 77 } do
        files[("deep/er/%d"):format(size)] = ("\0x\255"):rep(size):sub(1, size)
      end
      return files
    end

    -- Run it; its output when it succeeds. The line on stderr is checked.
    local function sums(...)
      local out, err, code = run("pipeline.lua", ...)
      assert.are.equal(0, code, err)
      local _, count = out:gsub("\n", "")
      assert.matches(("^pipeline: %d files, 0 unreadable, "):format(count), err)
      return out
    end

    it("prints what sha256sum prints, for files of all sizes and names", function()
      local folder = folder_of("sums", files_of_many_sizes())
      os.execute(("cd %s && ln -s . loop && ln -s 1000 link && mkfifo pipe"):format(quote(folder)))
      local out = sums(folder)
      assert.are.equal(sums_of(folder), sorted_lines(out))
      assert.are.equal(18, #out:gsub("[^\n]", ""))
    end)

    it("prints them in the order of the names, however many tasks hash", function()
      local folder = folder_of("sums", files_of_many_sizes())
      local out = sums("--threads", 1, folder)
      assert.are.equal(sums_of(folder), sorted_lines(out))
      assert.are.equal(out, sums("--threads", 5, folder, folder .. "/deep"))
      local names = {}
      for name in sums(folder .. "/deep"):gmatch("/er/(%d+)\n") do
        names[#names + 1] = name
      end
      local sorted = { unpack(names) }
      table.sort(sorted)
      assert.are.same(sorted, names)
      assert.are.equal(14, #names)
    end)

    it("takes the tree that it lies in, and sha256sum agrees with its lines", function()
      local tree = folder_of("tree", { ["README"] = "read me", ["sub/a.txt"] = "a" })
      os.execute(("cp -r %s %s"):format(quote(root .. "/examples"), quote(tree)))
      local out, err, code = shell(("%s %s 2>/dev/null | sha256sum -c"):format(
        treadle, quote(tree .. "/examples/pipeline.lua")))
      assert.are.same({ "", 0 }, { err, code })
      assert.matches("/tree/README: OK\n", out)
      assert.matches("/tree/examples/pipeline%.lua: OK\n", out)
      assert.matches("/tree/sub/a%.txt: OK\n$", out)
    end)

    it("reports what it cannot read, goes on, and exits with 1 at the end", function()
      local folder = folder_of("odd", { ["a.txt"] = "a", ["secret"] = "s", ["z.txt"] = "z" })
      -- A path that is too long for everybody, and a file that only root may read.
      os.execute(("cd %s && chmod 0 secret && d=$(printf '%%0250d' 0) && for i in $(seq 20); do"
        .. " mkdir $d && cd -P $d; done"):format(quote(folder)))
      local is_root = line_of("id -u") == "0"
      local out, err, code = run("pipeline.lua", folder)
      assert.are.equal(1, code)
      assert.matches("/a%.txt\n", out)
      assert.matches("/z%.txt\n$", out)
      assert.are.equal(is_root and 3 or 2, #out:gsub("[^\n]", ""))
      assert.matches("pipeline: cannot read [^\n]*name too long", err)
      assert.are.equal(not is_root, err:find("/secret: Permission denied\n", 1, true) ~= nil)
      assert.matches(("pipeline: %d files, %d unreadable, "):format(
        is_root and 3 or 2, is_root and 1 or 2), err)
    end)

    it("reports a file that cannot be read to its end, and goes on", function()
      local folder = folder_of("torn", {
        ["a.txt"] = ("a"):rep(3 * BLOCK), ["b.txt"] = ("b"):rep(3 * BLOCK), ["c.txt"] = "c",
      })
      local out, err, code = run_changed("pipeline.lua",
        "local block, message = file:read(BLOCK_BYTES)",
        [[local block, message = file:read(BLOCK_BYTES)
          if path:find "b.txt" and file:seek() == 2 * BLOCK_BYTES then
            block, message = nil, "the disk is torn"
          end]], folder)
      assert.are.equal(1, code)
      os.remove(folder .. "/b.txt")
      assert.are.equal(sums_of(folder), sorted_lines(out))
      assert.matches("^pipeline: cannot read " .. folder:gsub("%p", "%%%0")
        .. "/b%.txt: the disk is torn\npipeline: 2 files, 1 unreadable, ", err)
    end)

    it("ends, and says why, when a stage fails", function()
      local folder = folder_of("stages", files_of_many_sizes())
      for _, at in ipairs { "hash:update(block)", "count = count + 1" } do
        local out, err, code = run_changed("pipeline.lua", at, "error 'no luck'",
          "--threads", 1, folder)
        assert.are.same({ "", 1 }, { out, code })
        assert.matches("no luck", err)
      end
    end)

    it("has nothing to print for an empty folder", function()
      assert.are.equal("", sums(folder_of("nothing", {})))
    end)

    it("ends at Ctrl-C in the middle of a file, with whole lines", function()
      local folder = folder_of("endless", { ["a.txt"] = "a" })
      -- A shell without job control ignores SIGINT for what it starts in the background: env
      -- gives the default back.
      local out, err, code = shell(([[
        truncate -s 100G %s/b && mkfifo lines && exec 2>err
        env --default-signal=INT %s %s %s >lines &
        pid=$!
        exec 3<lines
        read -r first <&3
        kill -INT $pid
        wait $pid
        code=$?
        echo "$first"
        cat <&3
        exit $code
      ]]):format(quote(folder), treadle, quote(root .. "/examples/pipeline.lua"), quote(folder)))
      assert.are.equal(130, code)
      os.remove(folder .. "/b")
      assert.are.equal(sums_of(folder), out)
      assert.are.equal("", err)
      -- Where the end takes too long, the process ends without that line.
      assert.are.equal("", (project.read(scratch .. "/err"):gsub("^treadle: interrupted\n$", "")))
    end)

    it("refuses wrong arguments by name, with its usage", function()
      local file = folder_of("file", { ["a.txt"] = "a" }) .. "/a.txt"
      local cases = {
        { "unknown option '%-%-hlep'", "--hlep" },
        { "cannot open folder '/no/such/folder' %(.*ENOENT", "/no/such/folder" },
        { "a%.txt' is not a folder", file },
        { "%-%-threads needs a whole number from 1 to 1000, got '0'", "--threads", "0" },
        { "%-%-threads needs .*, got 'nothing'", "--threads" },
      }
      for _, case in ipairs(cases) do
        local err = usage_error_of("pipeline.lua", unpack(case, 2))
        assert.matches("^pipeline: .*" .. case[1] .. ".*\nusage: treadle pipeline%.lua", err)
      end
      assert.matches("^usage: treadle pipeline%.lua", output_of("pipeline.lua", "--help"))
    end)
  end)

  describe("sha256", function()
    local sha256 = dofile(root .. "/examples/sha256.lua")

    it("gives the sums that the standard gives", function()
      assert.are.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        sha256.hex(""))
      assert.are.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        sha256.hex("abc"))
      assert.are.equal("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        sha256.hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))
    end)

    it("takes data in pieces of all lengths", function()
      local data = ("0123456789abcdefg"):rep(12)
      local sum = sha256.hex(data)
      for cut = 0, #data do
        local middle = math.floor((cut + #data) / 2)
        local hash = sha256.new():update(data:sub(1, cut)):update(data:sub(cut + 1, middle))
        assert.are.equal(sum, hash:update(data:sub(middle + 1)):hex())
      end
    end)
  end)

  describe("sort", function()
    it("sorts few and many numbers as qsort does", function()
      for _, count in ipairs { 1, 2, 1000, 50000 } do
        local out = output_of("sort.lua", "--count", count)
        assert.matches(("^numbers   %d doubles, [%%d.]+ MiB, checksum %%x+\n"):format(count), out)
        assert.matches("\nspeed%-up  [%d.]+; [%d.]+ over C qsort\n", out)
        assert.matches("agree in every byte\n$", out)
      end
    end)

    it("says what is wrong with a result, and exits with 1", function()
      local call = "treadle.psort(numbers, nil, options):await()"
      local cases = {
        { call, "", "one core is not in order" },
        { call, "numbers:fill(numbers:get(0))", "one core holds other numbers than before" },
        { "check(\"qsort\", expected)\n", "expected:set(0, -2 ^ 40)\n",
          "one core differs from that of qsort" },
        { [[ffi.C.qsort_r(numbers.ptr, #numbers, 8, compare, ffi.cast("void *", 8))]], "",
          "qsort is not in order" },
      }
      for _, case in ipairs(cases) do
        local out, err, code = run_changed("sort.lua", case[1], case[2], "--count", 50000)
        assert.are.same({ "", "sort: the result of " .. case[3] .. "\n", 1 }, { out, err, code })
      end
    end)

    it("refuses wrong arguments by name, with its usage", function()
      local cases = {
        { "unknown option '%-%-hlep'", "--hlep" },
        { "unknown argument '5'", "5" },
        { "%-%-count needs a whole number from 1 to 100000000, got '0'", "--count", "0" },
        { "%-%-count needs .*, got '1%.5'", "--count", "1.5" },
        { "%-%-count needs .*, got 'nothing'", "--count" },
      }
      for _, case in ipairs(cases) do
        local err = usage_error_of("sort.lua", unpack(case, 2))
        assert.matches("^sort: .*" .. case[1] .. ".*\nusage: treadle sort%.lua", err)
      end
      assert.matches("^usage: treadle sort%.lua", output_of("sort.lua", "--help"))
    end)
  end)
end)
