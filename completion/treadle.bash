# Completion of treadle(1) in bash. Words are those of its usage: spec/completion_spec.lua.

_treadle_options='-e - -v --version -h --help'
_treadle_commands='top trace'
_treadle_trace_options='--html --svg -h --help'

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
