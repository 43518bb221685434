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

complete -c treadle -n __treadle_is_first -f -a bench -d 'measure what a call costs on this machine'
complete -c treadle -n '__treadle_follows bench' -f -l seconds -r -d 'take about so long'
complete -c treadle -n '__treadle_follows bench' -f -l threads -r -d 'workers of the parallel rows'
complete -c treadle -n '__treadle_follows bench' -f -s h -l help -d 'print how it is used'

complete -c treadle -n __treadle_is_first -f -a test -d 'run the specs of busted, files in parallel'
complete -c treadle -n '__treadle_follows test' -l version -d 'print busted\'s version'
complete -c treadle -n '__treadle_follows test' -s p -l pattern -r -d 'only files whose names match the Lua pattern'
complete -c treadle -n '__treadle_follows test' -l exclude-pattern -r -d 'no files whose names match the Lua pattern'
complete -c treadle -n '__treadle_follows test' -s e -r -d 'run a statement first'
complete -c treadle -n '__treadle_follows test' -s o -l output -r -d 'the output handler'
complete -c treadle -n '__treadle_follows test' -s C -l directory -r -d 'change to a directory first'
complete -c treadle -n '__treadle_follows test' -s f -l config-file -r -d 'read the configuration from a file'
complete -c treadle -n '__treadle_follows test' -l coverage-config-file -r -d 'read the configuration of luacov from a file'
complete -c treadle -n '__treadle_follows test' -s t -l tags -r -d 'only tests with these tags'
complete -c treadle -n '__treadle_follows test' -l exclude-tags -r -d 'no tests with these tags'
complete -c treadle -n '__treadle_follows test' -l filter -r -d 'only tests whose names match the Lua pattern'
complete -c treadle -n '__treadle_follows test' -l filter-out -r -d 'no tests whose names match the Lua pattern'
complete -c treadle -n '__treadle_follows test' -s m -l lpath -r -d 'goes before the path of Lua modules'
complete -c treadle -n '__treadle_follows test' -l cpath -r -d 'goes before the path of C modules'
complete -c treadle -n '__treadle_follows test' -s r -l run -r -d 'which configuration of .busted to use'
complete -c treadle -n '__treadle_follows test' -l repeat -r -d 'run the tests repeatedly'
complete -c treadle -n '__treadle_follows test' -l seed -r -d 'for shuffling'
complete -c treadle -n '__treadle_follows test' -l lang -r -d 'language of messages'
complete -c treadle -n '__treadle_follows test' -l loaders -r -d 'loaders of files'
complete -c treadle -n '__treadle_follows test' -l helper -r -d 'a script that runs before the tests'
complete -c treadle -n '__treadle_follows test' -l lua -r -d 'the interpreter that runs the files'
complete -c treadle -n '__treadle_follows test' -o Xoutput -r -d 'an option for the output handler'
complete -c treadle -n '__treadle_follows test' -o Xhelper -r -d 'an option for the helper script'
complete -c treadle -n '__treadle_follows test' -s c -l coverage -d 'measure coverage, with luacov'
complete -c treadle -n '__treadle_follows test' -l no-coverage -d 'not: measure coverage, with luacov'
complete -c treadle -n '__treadle_follows test' -s v -l verbose -d 'say more of errors'
complete -c treadle -n '__treadle_follows test' -l no-verbose -d 'not: say more of errors'
complete -c treadle -n '__treadle_follows test' -s s -l enable-sound -d 'tell the result aloud'
complete -c treadle -n '__treadle_follows test' -l no-enable-sound -d 'not: tell the result aloud'
complete -c treadle -n '__treadle_follows test' -s l -l list -d 'list the names of tests instead'
complete -c treadle -n '__treadle_follows test' -l ignore-lua -d 'run files here, whatever the configuration says'
complete -c treadle -n '__treadle_follows test' -l lazy -d 'run setup and teardown only where there are tests'
complete -c treadle -n '__treadle_follows test' -l no-lazy -d 'not: run setup and teardown only where there are tests'
complete -c treadle -n '__treadle_follows test' -l auto-insulate -d 'insulate files'
complete -c treadle -n '__treadle_follows test' -l no-auto-insulate -d 'not: insulate files'
complete -c treadle -n '__treadle_follows test' -s k -l keep-going -d 'go on after errors and failures'
complete -c treadle -n '__treadle_follows test' -l no-keep-going -d 'not: go on after errors and failures'
complete -c treadle -n '__treadle_follows test' -s R -l recursive -d 'look into folders of folders'
complete -c treadle -n '__treadle_follows test' -l no-recursive -d 'not: look into folders of folders'
complete -c treadle -n '__treadle_follows test' -l shuffle -d 'shuffle files and tests'
complete -c treadle -n '__treadle_follows test' -l no-shuffle -d 'not: shuffle files and tests'
complete -c treadle -n '__treadle_follows test' -l shuffle-files -d 'shuffle files'
complete -c treadle -n '__treadle_follows test' -l no-shuffle-files -d 'not: shuffle files'
complete -c treadle -n '__treadle_follows test' -l shuffle-tests -d 'shuffle the tests of a file'
complete -c treadle -n '__treadle_follows test' -l no-shuffle-tests -d 'not: shuffle the tests of a file'
complete -c treadle -n '__treadle_follows test' -l sort -d 'sort files and tests'
complete -c treadle -n '__treadle_follows test' -l no-sort -d 'not: sort files and tests'
complete -c treadle -n '__treadle_follows test' -l sort-files -d 'sort files'
complete -c treadle -n '__treadle_follows test' -l no-sort-files -d 'not: sort files'
complete -c treadle -n '__treadle_follows test' -l sort-tests -d 'sort the tests of a file'
complete -c treadle -n '__treadle_follows test' -l no-sort-tests -d 'not: sort the tests of a file'
complete -c treadle -n '__treadle_follows test' -l suppress-pending -d 'say nothing of pending tests'
complete -c treadle -n '__treadle_follows test' -l no-suppress-pending -d 'not: say nothing of pending tests'
complete -c treadle -n '__treadle_follows test' -l defer-print -d 'print when all is done'
complete -c treadle -n '__treadle_follows test' -l no-defer-print -d 'not: print when all is done'
complete -c treadle -n '__treadle_follows test' -l jobs -r -d 'how many files run at once'
complete -c treadle -n '__treadle_follows test' -l timeout -r -d 'end a file in which nothing happens for so long; 0: never'
complete -c treadle -n '__treadle_follows test' -l print -r -d 'show what all files print, or the failed ones'
complete -c treadle -n '__treadle_follows test' -l progress -d 'on a terminal, a line that says how far the run is'
complete -c treadle -n '__treadle_follows test' -l no-progress -d 'not: on a terminal, a line that says how far the run is'
complete -c treadle -n '__treadle_follows test' -l help -d 'print all options'
