#!/usr/bin/env bash
# Whether mixers recall what they should: multi-query associative recall, 2 layers of width 64 without feed-forward, a
# convolution of 4 in front of each, trained on one rank and on 2 that share every sequence, so that most pairs and queries
# are on different ranks. Prints a row for each run; ends with 1 if one recalls less than is asked for. Some minutes a run on
# a core; no part of tests/run.sh. docs/limits/recall.txt is what it printed.
#   tests/recall.sh [--only REGEX] [PROGRAM]     REGEX: of rows like "delta 16 128 500 2"
set -euo pipefail
here=$(realpath "$(dirname "$0")")
usage() { sed -n '2,6s/^# \{0,1\}//p' "$here/recall.sh"; }
only=.
while [[ ${1:-} == -* ]]; do
  case $1 in
    --only) only=${2:?}; shift 2 ;;
    *) usage; [[ $1 == -h || $1 == --help ]] && exit 0; exit 2 ;;
  esac
done
switchyard=$(realpath "${1:-$here/../build/release/switchyard}")
cd "$here/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Kind, its entry, pairs, tokens, steps, least accuracy in percent; what else the run is told. The delta rule alone begins with
# weights as large as PyTorch's linear layers have at this width (0.07): with 0.02 it ends at 99.4 %, on 2 ranks below 99. Its
# gated form learns from 0.02, and from 0.07 it does not.
cases=(
  "full|{conv: 4}|16|128|900|99.9"
  "delta|{kind: delta, conv: 4}|16|128|500|99|model.initial_std=0.07"
  "gated_delta|{kind: gated_delta, conv: 4}|4|64|900|97"
)
failures=0
printf '%-12s %6s %7s %6s %6s %9s %8s %8s\n' kind pairs tokens steps ranks accuracy wanted seconds
for case in "${cases[@]}"; do
  IFS='|' read -r kind mixer pairs tokens steps wanted more <<<"$case"
  for ranks in 1 2; do
    grep -qE -- "$only" <<<"$kind $pairs $tokens $steps $ranks" || continue
    data=$work/mqar-$tokens-$pairs.h5
    [[ -e $data ]] || "$switchyard" prepare --synthetic mqar --length "$tokens" --size "$pairs" --documents 30000 \
      --valid 0.02 --output "$data" >"$work/prepare.log"
    run=("$switchyard" train configs/studies/limits/task_model.yaml "model.mixer=$mixer" data.path="$data"
      model.sequence_length="$tokens" train.num_steps="$steps" evaluate.every="$steps" run.output="$work/run"
      parallel.context="$ranks" parallel.context.layout=contiguous ${more:+"$more"})
    ((ranks == 1)) || run=("$here/support/mpiexec.sh" -n "$ranks" "${run[@]}")
    rm -rf "$work/run"
    SECONDS=0
    "${run[@]}" >"$work/out" 2>&1 || { tail -n 3 "$work/out" >&2; exit 1; }
    accuracy=$(sed -nE 's/.*"validation_accuracy": ([0-9.e-]+).*/\1/p' "$work/run/metrics.jsonl" | tail -n 1)
    accuracy=$(awk -v a="$accuracy" 'BEGIN { printf "%.2f", 100 * a }')
    printf '%-12s %6s %7s %6s %6s %9s %8s %8s\n' "$kind" "$pairs" "$tokens" "$steps" "$ranks" "$accuracy" "$wanted" "$SECONDS"
    awk -v a="$accuracy" -v w="$wanted" 'BEGIN { exit !(a >= w) }' || failures=$((failures + 1))
  done
done
((failures == 0)) || { echo "$failures recall less than wanted" >&2; exit 1; }
