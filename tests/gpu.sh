#!/usr/bin/env bash
# Runs every test for a card and the benchmarks, from an unpacked bundle (launch/bundle.sh), on a machine
# that has a card, MPI and CUDA's cuBLAS, without network. A short table comes last.
#   tests/gpu.sh [--tests | --speed | --sanitize] [NAME...]
# NAME: only tests and speed programs whose name holds one of these words. Logs: $OUT, else ./gpu_logs.
set -uo pipefail
what=all
case ${1:-} in
  --tests | --speed | --sanitize) what=${1#--}; shift ;;
  -*) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
logs=${OUT:-$PWD/gpu_logs}
mkdir -p "$logs"
logs=$(realpath "$logs")
export LD_LIBRARY_PATH=$here/../lib:/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export SWITCHYARD_GOLDEN=$here/golden OMP_NUM_THREADS=1
wanted() {
  local name=$1 word
  shift
  [[ $# -eq 0 ]] && return 0
  for word in "$@"; do [[ $name == *$word* ]] && return 0; done
  return 1
}
started=$SECONDS

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || {
  echo "gpu.sh: nvidia-smi finds no card" >&2
  exit 2
}
"$here/../bin/switchyard" --version | head -n 12

# run_one NAME RANKS PROGRAM: writes NAME's log and "NAME code seconds".
run_one() {
  local name=$1 ranks=$2 program=$3 begun=$SECONDS code=0 start=() guard=()
  [[ $ranks -eq 0 ]] || start=("$here/mpiexec.sh" -n "$ranks")
  [[ -z ${SANITIZER:-} ]] || guard=(compute-sanitizer --tool "$SANITIZER" --error-exitcode 9 --print-limit 5)
  cd "$here" || exit 1
  SWITCHYARD_TEST_DEVICE=cuda timeout -k 5 "${LIMIT:-150}" "${start[@]}" "${guard[@]}" "./$program" >"$logs/$name.log" 2>&1 || code=$?
  echo "$name $code $((SECONDS - begun))" >>"$logs/outcomes.txt"
}
export -f run_one
export here logs

failed=0
if [[ $what != speed ]]; then
  : >"$logs/outcomes.txt"
  tools=("")
  [[ $what != sanitize ]] || tools=(memcheck racecheck initcheck synccheck)
  for tool in "${tools[@]}"; do
    export SANITIZER=$tool
    while read -r name ranks program; do
      wanted "$name" "$@" || continue
      # A sanitizer is for single programs of kernels: it slows them by tens.
      [[ -z $tool || ($ranks -eq 0 && $name != model_*) ]] || continue
      echo "$name $ranks $program"
    done <"$here/card_tests.txt" | xargs -r -P 5 -L 1 bash -c 'run_one "$0${SANITIZER:+.$SANITIZER}" "$1" "$2"'
  done
  while read -r name code seconds; do
    [[ $code -eq 0 ]] && continue
    failed=$((failed + 1))
    echo "=== $name: code $code after $seconds s"
    grep -E '^\[  FAILED|Failure|rank [0-9]+:|CUDA|threw|what\(\)|ERROR SUMMARY|=========' "$logs/$name.log" | head -n "${LINES_OF_FAILURE:-14}"
  done <"$logs/outcomes.txt"
fi

if [[ $what == speed || $what == all ]]; then
  for program in "$here"/cuda_speed_*; do
    name=$(basename "$program")
    wanted "$name" "$@" || continue
    echo "=== $name"
    timeout -k 5 60 "$program" 2>&1 | tee "$logs/$name.log" | tail -n 45
  done
  for config in "$here"/../configs/bench/gpu_*.yaml; do
    name=bench_$(basename "$config" .yaml)
    wanted "$name" "$@" || continue
    echo "=== $name"
    OMP_NUM_THREADS=8 timeout -k 5 100 "$here/../bin/switchyard" bench step "$config" run.device=cuda 2>&1 | tee "$logs/$name.log" | tail -n 30
  done
fi

if [[ -s $logs/outcomes.txt && $what != speed ]]; then
  total=$(wc -l <"$logs/outcomes.txt")
  echo "tests on the card: $((total - failed)) passed, $failed failed, of $total; $((SECONDS - started)) s in all"
fi
[[ $failed -eq 0 ]]
