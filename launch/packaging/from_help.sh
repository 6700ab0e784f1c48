#!/usr/bin/env bash
# The man page or the completion of bash, from the help of the program: its table of commands and their options.
#   from_help.sh man|bash SWITCHYARD OUTPUT
set -euo pipefail
if [[ $# -ne 3 || ! $1 =~ ^(man|bash)$ ]]; then
  sed -n '2,3s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
kind=$1 switchyard=$2 output=$3

mapfile -t commands < <("$switchyard" --help | awk '/^Commands:/ { inside = 1; next } /^$/ { inside = 0 } inside { print $1 }')
[[ ${#commands[@]} -gt 0 ]] || { echo "from_help.sh: $switchyard --help lists no commands" >&2; exit 1; }
# options COMMAND: a line each of its long options, with the name of a value behind a blank.
options() { "$switchyard" "$1" --help | sed -nE 's/^  (-. \[ )?(--[a-z-]+)( \])?( [A-Z][A-Z.a-z]*)?( .*|$)/\2\4/p'; }

man_page() {
  local version command
  version=$("$switchyard" --version | sed -n '1s/^switchyard \([^ ]*\).*/\1/p')
  # A dot or an apostrophe at the beginning of a line would be a request of roff, a backslash an escape.
  local text='s/\\/\\e/g; s/^\([.'"'"']\)/\\\&\1/; s/-/\\-/g'
  cat <<ROFF
.TH SWITCHYARD 1 "" "switchyard $version" "User Commands"
.SH NAME
switchyard \- trains mixture\-of\-experts language models on many ranks
.SH SYNOPSIS
.B switchyard
.I COMMAND
[\fIARGUMENT\fR ...]
.SH COMMANDS
ROFF
  for command in "${commands[@]}"; do
    printf '.SS %s\n.nf\n' "$(sed "$text" <<<"$command")"
    "$switchyard" "$command" --help | fold -s -w 100 | sed "$text"  # lines are cut before their beginnings count
    printf '.fi\n'
  done
  cat <<'ROFF'
.SH EXIT STATUS
.nf
0   done
1   a defect of the program
2   command line or configuration
3   bad data
4   no valid checkpoint where one is needed
5   does not fit in memory
6   input, output, or a full disk
16  stopped on request: the same command goes on
17  loss or gradient is not finite
18  no rank made progress
19  restarted again and again from the same step
20  a rank died without a word
.fi
ROFF
}

completion() {
  local command
  echo "# Completion of bash for switchyard, made from its help."
  echo "_switchyard() {"
  echo "  local word=\${COMP_WORDS[COMP_CWORD]} options"
  echo "  COMPREPLY=()"
  echo "  if ((COMP_CWORD == 1)); then"
  echo "    mapfile -t COMPREPLY < <(compgen -W '${commands[*]} help --help --version' -- \"\$word\")"
  echo "    return"
  echo "  fi"
  echo "  case \${COMP_WORDS[1]} in"
  for command in "${commands[@]}"; do
    echo "    $command) options='$(options "$command" | cut -d ' ' -f 1 | tr '\n' ' ' | sed 's/ $//')' ;;"
  done
  echo "    help) mapfile -t COMPREPLY < <(compgen -W '${commands[*]}' -- \"\$word\"); return ;;"
  echo "    *) options='' ;;"
  echo "  esac"
  echo "  if [[ \$word == -* ]]; then"
  echo "    mapfile -t COMPREPLY < <(compgen -W \"\$options\" -- \"\$word\")"
  echo "  else"
  echo "    mapfile -t COMPREPLY < <(compgen -f -- \"\$word\")"
  echo "  fi"
  echo "}"
  echo "complete -o filenames -F _switchyard switchyard"
}

if [[ $kind == man ]]; then man_page; else completion; fi >"$output.part"
mv "$output.part" "$output"
