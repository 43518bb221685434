# Completion of treadle(1) in bash. Words are those of its usage: spec/completion_spec.lua.

_treadle_options='-e - -v --version -h --help'
_treadle_commands='top trace bench test'
_treadle_trace_options='--html --svg -h --help'
_treadle_bench_options='--seconds --threads -h --help'
_treadle_test_options='--version -p --pattern --exclude-pattern -e -o --output -C --directory -f --config-file
  --coverage-config-file -t --tags --exclude-tags --filter --filter-out -m --lpath --cpath
  -r --run --repeat --seed --lang --loaders --helper --lua -Xoutput -Xhelper -c --coverage
  --no-coverage -v --verbose --no-verbose -s --enable-sound --no-enable-sound -l --list
  --ignore-lua --lazy --no-lazy --auto-insulate --no-auto-insulate -k --keep-going
  --no-keep-going -R --recursive --no-recursive --shuffle --no-shuffle --shuffle-files
  --no-shuffle-files --shuffle-tests --no-shuffle-tests --sort --no-sort --sort-files
  --no-sort-files --sort-tests --no-sort-tests --suppress-pending --no-suppress-pending
  --defer-print --no-defer-print --jobs --timeout --print --progress --no-progress --help'

# Files whose names end in one of these words, and folders.
_treadle_files() {
  local word=$1 suffix file
  compopt -o filenames 2>/dev/null
  shift
  for suffix in "$@"; do
    while IFS= read -r file; do
      [[ -d $file ]] || COMPREPLY+=("$file")
    done < <(compgen -f -X "!*$suffix" -- "$word")
  done
  while IFS= read -r file; do
    COMPREPLY+=("$file")
  done < <(compgen -d -- "$word")
}

_treadle_words() {
  local word=$1
  shift
  mapfile -t COMPREPLY < <(compgen -W "$*" -- "$word")
}

_treadle() {
  local word=${COMP_WORDS[COMP_CWORD]} at=1
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    _treadle_words "$word" "$_treadle_options $_treadle_commands"
    [[ $word == -* ]] || _treadle_files "$word" .lua
    return
  fi
  case ${COMP_WORDS[1]} in
    trace)
      if [[ $word == -* ]]; then
        _treadle_words "$word" "$_treadle_trace_options"
      elif ((COMP_CWORD == 2)); then
        _treadle_files "$word" .json
      else
        _treadle_files "$word" ''
      fi
      return
      ;;
    bench)
      _treadle_words "$word" "$_treadle_bench_options"
      return
      ;;
    test)
      if [[ $word == -* ]]; then
        _treadle_words "$word" "$_treadle_test_options"
      else
        _treadle_files "$word" .lua
      fi
      return
      ;;
    top)
      at=2
      if ((COMP_CWORD == 2)); then
        if [[ $word == -* ]]; then
          _treadle_words "$word" '-e -'
        else
          _treadle_files "$word" .lua
        fi
        return
      fi
      ;;
    -v | --version | -h | --help) return ;;
  esac
  # Code is for who writes it; what follows a script is the script's.
  [[ ${COMP_WORDS[at]} == -e ]] && ((COMP_CWORD == at + 1)) || _treadle_files "$word" ''
}

complete -F _treadle treadle
