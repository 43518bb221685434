std = "luajit"
max_line_length = 100
files["spec"].std = "luajit+busted"
files["examples/nginx"].std = "luajit+ngx_lua"
files["rocks/*.rockspec"].std = "rockspec"
