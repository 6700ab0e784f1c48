#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test: the release build with all of them, then the
# unit tests under the address and undefined-behaviour sanitizers. Quiet when all is well.
#   tests/run.sh [--no-asan] [CTEST ARGUMENTS...]
set -euo pipefail
cd "$(dirname "$0")/.."

with_asan=1
if [[ ${1:-} == --no-asan ]]; then
  with_asan=0
  shift
fi
launch/install_packages.sh
launch/install_packages.sh tests/packages.txt || true  # those tests say what they lack

# run PRESET [CTEST ARGUMENTS...]: prints the names and output of failures, and ctest's closing lines.
run() {
  local preset=$1 log=build/$1/tests.log
  shift
  launch/build.sh "$preset"
  if ctest --preset "$preset" -j "$(nproc)" --no-tests=error "$@" >"$log" 2>&1; then
    grep -E '^[0-9]+% tests passed|^Total Test time' "$log"
    # Tests that need what this machine lacks (root, Slurm) say so themselves.
    grep -hoE 'NOT TESTED: .*' "$log" build/"$preset"/Testing/Temporary/LastTest.log | sort -u >> "$untested" || true
    return 0
  fi
  sed -n '/\*\*\*Failed\|\*\*\*Timeout\|\*\*\*Exception/,/^ *[0-9]*\/[0-9]* Test/p' "$log" | head -n 200 >&2
  sed -n '/tests passed/,$p' "$log"
  echo "tests/run.sh: FAILED in the $preset build; the whole log is $log"
  exit 1
}

untested=$(mktemp)
trap 'rm -f "$untested"' EXIT
started=$SECONDS
run release "$@"
if [[ $with_asan -eq 1 ]]; then
  run asan "$@"
fi
if [[ -s $untested ]]; then
  sort -u "$untested"
  echo "tests/run.sh: all other tests passed in $((SECONDS - started)) s; the lines above tell what this machine could not test"
else
  echo "tests/run.sh: all tests passed in $((SECONDS - started)) s, none skipped"
fi
