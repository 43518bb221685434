# Completion of treadle(1) in fish. Words are those of its usage: spec/completion_spec.lua.

function __treadle_is_first
    test (count (commandline -opc)) -eq 1
end

function __treadle_is_script_of_top
    set -l words (commandline -opc)
    test (count $words) -eq 2; and test $words[2] = top
end

function __treadle_follows
    set -l words (commandline -opc)
    test (count $words) -ge 2; and test $words[2] = $argv[1]
end

complete -c treadle -n __treadle_is_first -f -a top -d 'run a script, and watch its pools'
complete -c treadle -n __treadle_is_first -f -a trace -d 'show a recording of a pool'
complete -c treadle -n __treadle_is_first -f -a '(__fish_complete_suffix .lua)'
complete -c treadle -n __treadle_is_script_of_top -f -a '(__fish_complete_suffix .lua)'
complete -c treadle -n __treadle_is_first -s e -x -d 'run a string of Lua'
complete -c treadle -n __treadle_is_first -f -a - -d 'run what comes from standard input'
complete -c treadle -n __treadle_is_first -s v -l version -f -d 'print the versions'
complete -c treadle -n __treadle_is_first -s h -l help -f -d 'print how it is used'

complete -c treadle -n '__treadle_follows trace' -l html -d 'write a page for a browser'
complete -c treadle -n '__treadle_follows trace' -l svg -d 'write a picture'
complete -c treadle -n '__treadle_follows trace' -s h -l help -d 'print how it is used'
