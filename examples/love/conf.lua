-- treadle is found by package.cpath, as every module in C: see docs/love.md for a game that brings
-- it along.
function love.conf(t)
  t.identity = "treadle-example"
  t.window.title = "treadle"
  t.window.width, t.window.height = 512, 512
  t.window.vsync = 0
  t.modules.audio, t.modules.sound = false, false
  t.modules.joystick, t.modules.physics = false, false
end
