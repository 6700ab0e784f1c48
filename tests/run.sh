#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. Quiet when all is well. With --asan also the unit
# tests under the address, undefined-behaviour and leak sanitizers, which takes as long again.
# With --quick what shows most mistakes within 4 minutes on 2 cores, and the names of what it left out.
#   tests/run.sh [--asan | --quick] [CTEST ARGUMENTS...]
set -euo pipefail
script=$(realpath "$0")
cd "$(dirname "$0")/.."

usage() { sed -n '2,5s/^# \{0,1\}//p' "$script"; }
with_asan=0
if [[ ${1:-} == --asan ]]; then
  with_asan=1
  shift
fi
quick=0
chosen=
if [[ ${1:-} == --quick ]]; then
  quick=1
  chosen=" of --quick"
  shift
fi
# A word that ctest does not know would show only after the build.
known=$(ctest --help 2>/dev/null || true)
for word in "$@"; do
  case $word in
    -h | --help) usage; exit 0 ;;
    -*)
      name=$(sed -E 's/^(--[^=]*|-[A-Za-z]+).*/\1/' <<<"$word")  # --output-on-failure, --timeout=9, -j4
      if [[ -n $known ]] && ! grep -qE -- "(^|[ ,])$name([ ,=]|$)" <<<"$known"; then
        usage >&2
        echo "tests/run.sh: unknown option '$word'" >&2
        exit 2
      fi ;;
  esac
done
# All tests must include some of each kind; a selection by the caller need not.
if_none=error
[[ $# -eq 0 ]] || if_none=ignore
launch/install_packages.sh
launch/install_packages.sh tests/packages.txt || true  # those tests say what they lack

# run PRESET LOG [CTEST ARGUMENTS...]: the tests of a build.
run() {
  local preset=$1 log=build/$1/$2
  shift 2
  local code=0
  ctest --preset "$preset" -j "$(nproc)" "--no-tests=$if_none" "$@" >"$log" 2>&1 || code=$?
  tell_end "$code" "$log" "build/$preset"
}

# tell_end CODE LOG FOLDER: prints the names and output of failures, and ctest's closing lines.
tell_end() {
  local code=$1 log=$2 folder=$3
  if [[ $code -eq 0 ]]; then
    # A selection may hold none of these tests.
    if grep -E '^[0-9]+% tests passed|^Total Test time' "$log"; then ran=1; fi
    # Tests that need what this machine lacks (root, Slurm) say so themselves.
    grep -hoE 'NOT TESTED: .*' "$log" "$folder"/Testing/Temporary/LastTest.log | sort -u >> "$untested" || true
    local without_card
    without_card=$(grep -cE '\.cuda(\.ranks[0-9]+)? .*\*\*\*Skipped' "$log" || true)
    [[ $without_card -eq 0 ]] || echo "no GPU: $without_card tests for a card were not run" >> "$untested"
    return 0
  fi
  sed -n '/\*\*\*Failed\|\*\*\*Timeout\|\*\*\*Exception/,/^ *[0-9]*\/[0-9]* Test/p' "$log" | head -n 200 >&2
  sed -n '/tests passed/,$p' "$log"
  echo "tests/run.sh: FAILED; the whole log is $log"
  exit 1
}

# A batch system mostly waits for its own clocks, so its tests run beside the others: in the folder of
# their own, for ctest keeps one log a folder.
slurm_tests=
start_slurm_tests() {
  set -m
  ctest --test-dir build/release/tests/slurm --output-on-failure -L slurm --repeat until-pass:2 \
    "--no-tests=$if_none" "$@" >build/release/slurm_tests.log 2>&1 &
  slurm_tests=$!
  set +m
}
finish_slurm_tests() {
  local code=0
  wait "$slurm_tests" || code=$?
  slurm_tests=
  tell_end "$code" build/release/slurm_tests.log build/release/tests/slurm
}

# The sanitizers' build uses what the tests leave of the processor. It has a process group of its own, so
# that an early end of this script ends it too.
asan_build=
start_asan_build() {
  set -m
  nice -n 19 launch/build.sh asan >"$asan_words" 2>&1 &
  asan_build=$!
  set +m
}
finish_asan_build() {
  local code=0
  wait "$asan_build" || code=$?
  asan_build=
  cat "$asan_words"
  [[ $code -eq 0 ]] || exit 1
}
# One instruction set, one and two ranks; nothing that waits for clocks, no whole studies.
quick_choice=(-LE 'faults|hosts|slurm|long' -E '\.(sse4|avx2|avx512|avx512_bf16|amx)$|\.ranks[3-9]$')
names() { ctest --test-dir build/release -N "$@" | sed -nE 's/^ *Test +#[0-9]+: //p' | sort; }
run_quick() {
  run release quick_tests.log "${quick_choice[@]}" "$@"
  local left_out
  left_out=$(comm -23 <(names "$@") <(names "${quick_choice[@]}" "$@"))
  [[ -z $left_out ]] || fmt -w 110 <<<"left out by --quick ($(wc -l <<<"$left_out") tests):"$'\n'"$left_out"
}
untested=$(mktemp)
asan_words=$(mktemp)
clean_up() {
  local job
  for job in $asan_build $slurm_tests; do kill -- "-$job" 2>/dev/null || true; done
  rm -f "$untested" "$asan_words"
}
trap clean_up EXIT

ran=0
started=$SECONDS
launch/build.sh release
if [[ $quick -eq 1 ]]; then
  run_quick "$@"
else
  # Tests on several hosts and of dying ranks have limits in seconds, which another program on the machine
  # can break: they run alone, and once more if they fail.
  run release timed_tests.log -L 'faults|hosts' --repeat until-pass:2 "$@"
  [[ $with_asan -eq 0 ]] || start_asan_build
  start_slurm_tests "$@"
  run release tests.log -LE 'faults|hosts|slurm' "$@"
  finish_slurm_tests
  if [[ $with_asan -eq 1 ]]; then
    finish_asan_build
    run asan tests.log "$@"
  fi
fi
if [[ $ran -eq 0 ]]; then
  echo "tests/run.sh: no test matches: $*" >&2
  exit 2
fi
if [[ -s $untested ]]; then
  sort -u "$untested"
  echo "tests/run.sh: all other tests$chosen passed in $((SECONDS - started)) s; the lines above tell what this machine could not test"
else
  echo "tests/run.sh: all tests$chosen passed in $((SECONDS - started)) s, none skipped"
fi
