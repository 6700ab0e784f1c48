#!/usr/bin/env bash
# Exact mode, the whole product: each feature of models, in fp32 and bf16, on every legal layout of 1, 2, 3, 4,
# 6 and 8 ranks, in several ways to compute, beside one rank; curves and checkpoints must be equal bit for
# bit. Prints a line a run and a count; ends with 1 if anything differs. Some 13,000 runs, 7 hours on 2 cores; no part of
# tests/run.sh, whose exact tests run every layout once.
#   tests/exact.sh [--only REGEX] [--steps N] [PROGRAM]
# REGEX: of lines like "windows bf16 4: 2 2 4 recompute" (ranks: data, context, expert, way). PROGRAM: that of
# this tree if left out.
set -uo pipefail
here=$(realpath "$(dirname "$0")")
usage() { sed -n '2,9s/^# \{0,1\}//p' "$here/exact.sh"; }
only=. num_steps=50
while [[ ${1:-} == -* ]]; do
  case $1 in
    --only) only=${2:?}; shift 2 ;;
    --steps) num_steps=${2:?}; shift 2 ;;
    *) usage; [[ $1 == -h || $1 == --help ]] && exit 0; exit 2 ;;
  esac
done
mpiexec=$here/support/mpiexec.sh
switchyard=$(realpath "${1:-$here/../build/release/switchyard}")
[[ -x $switchyard ]] || { echo "exact: $switchyard is not built: launch/build.sh release" >&2; exit 2; }
source "$here/launch/expect.sh"
source "$here/support/exact_runs.sh"
cd "$work" || exit 2
prepare_exact

ways=(plain accumulate recompute spill threads contiguous gather resume)
# way_of NAME DATA CONTEXT: its overrides in `way`; false where the layout has no such way.
way_of() {
  way=()
  case $1 in
    accumulate) way=("train.micro_batch=$((24 / $2 % 6 ? 1 : 24 / $2 / 6))") ;;
    recompute) way=(activations.policy=recompute) ;;
    spill) way=(activations.policy=spill activations.store=hdf5 "activations.folder=$work") ;;
    threads) way=(run.threads=4) ;;
    contiguous) (($3 > 1)) && way=(parallel.context.layout=contiguous) ;;
    gather) (($3 > 1)) && way=("parallel.context.ring=$3" parallel.context.method=all_gather) ;;
  esac
}

count=0
for feature in "${model_features[@]}" "${router_features[@]}"; do
  for precision in fp32 bf16; do
    [[ $feature != bf16 || $precision == bf16 ]] || continue
    features_of "$feature"
    model=("run.precision=$precision" "${overrides[@]}")
    rm -rf one
    for ranks in 1 2 3 4 6 8; do
      while read -r data context expert; do
        for name in "${ways[@]}"; do
          title="$feature $precision $ranks: $data $context $expert $name"
          grep -qE -- "$only" <<<"$title" || continue
          way_of "$name" "$data" "$context" || continue
          [[ -d one ]] || exact_train one 1 1 1 1 "${model[@]}" || break 3
          if [[ $name == resume ]]; then
            num_steps=$((num_steps / 3)) exact_train run 2 1 2 2 "${model[@]}"
            num_steps=$((num_steps * 2 / 3)) exact_train run 4 4 1 2 "${model[@]}"
          fi
          if exact_train run "$ranks" "$data" "$context" "$expert" "${model[@]}" "${way[@]}"; then
            compare_runs run one && verdict=equal || verdict=DIFFERENT
            printf '%-9s %s\n' "$verdict" "$title"
          fi
          count=$((count + 1))
          rm -rf run
        done
      done < <(layouts "$ranks")
    done
  done
done
echo "$count runs compared with one rank, $failures failures"
[[ $count -gt 0 && $failures -eq 0 ]]
