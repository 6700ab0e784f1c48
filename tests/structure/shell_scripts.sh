#!/usr/bin/env bash
# Every shell script of the tree parses and is executable.
#   shell_scripts.sh SOURCE_FOLDER
set -euo pipefail
cd "$1"
checked=0
while IFS= read -r script; do
  bash -n "$script"
  [[ -x $script ]] || { echo "$script is not executable"; exit 1; }
  checked=$((checked + 1))
done < <(grep -rlE '^#!.*bash' --include='*' launch tests bench .ci 2>/dev/null)
[[ $checked -gt 0 ]] || { echo "no script found"; exit 1; }
echo "$checked scripts"
