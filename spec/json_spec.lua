--- JSON, as far as traces need it.
require "treadle"
local json = require "treadle.json"

describe("json", function()
  it("reads every kind of value", function()
    assert.same({ 1, -2.5, 1e3, true, false, "a", {}, { { b = "c" } } },
      json.decode ' [1, -2.5,1e3 , true,false,"a",{},[{"b" : "c"}]]\n')
    assert.equal(json.null, json.decode "null")
    assert.same({}, json.decode "[]")
  end)

  it("reads escapes, surrogates included", function()
    assert.same('"\\/\b\f\n\r\té😀\0', json.decode [["\"\\\/\b\f\n\r\té\ud83d\ude00\u0000"]])
  end)

  it("reads what it has quoted", function()
    for _, text in ipairs { "", "a", 'a"\\\n\r\t\1\127', "é€😀", ("x"):rep(1000) } do
      assert.same(text, json.decode(json.quote(text)))
    end
  end)

  it("quotes bytes that are no UTF-8 as U+FFFD", function()
    for _, text in ipairs { "\255", "\192\128", "\237\160\128", "\244\144\128\128", "\226\130" } do
      assert.matches("^\"[\239\191\189]+\"$", json.quote(text))
    end
    assert.same('"a\239\191\189b"', json.quote "a\255b")
  end)

  it("says what is wrong, and in which line", function()
    for text, problem in pairs {
      [""] = "line 1: a value expected",
      ["{\n\n]"] = "line 3: a name in quotes expected",
      ["[1 2]"] = "line 1: ',' or ']' expected",
      ['{"a" 1}'] = "line 1: ':' expected",
      ['{"a":1 "b"}'] = "line 1: ',' or '}' expected",
      ["[1]\n[2]"] = "line 2: something follows the end",
      ['"a'] = "line 1: a string without an end",
      ['"a\nb"'] = "line 1: a control character in a string",
      ['"\\x"'] = "line 1: a wrong escape",
      ['"\\u12"'] = "line 1: a wrong escape",
      ["01"] = "line 1: a value expected",
      ["1."] = "line 1: a value expected",
      ["nul"] = "line 1: a value expected",
      ["[1,]"] = "line 1: a value expected",
      [("["):rep(300)] = "line 1: too deep",
    } do
      local value, why = json.decode(text)
      assert.is_nil(value)
      assert.same(problem, why)
    end
  end)
end)
