-- busted's TAP output, which breaks on a spec that does not compile: such an
-- error has no position of its own (it stands in the message).
return function(options)
  require("busted").subscribe({ "error" }, function(element, _, _, position)
    if position then
      position.short_src = position.short_src or element.name
      position.currentline = position.currentline or 0
    end
    return nil, true
  end)
  return require("busted.outputHandlers.TAP")(options)
end
