#!/usr/bin/env bash
# Exact mode on the program: every legal layout of some numbers of ranks trains 50 steps, with features drawn
# by a fixed seed, and has the curve and the checkpoint of one rank, bit for bit. RANKS 2: of 1 and 2 ranks;
# 8: of 3, 4, 6 and 8. tests/exact.sh runs the whole product.
#   exact_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
mpiexec=$1 switchyard=$2
case $3 in
  2) all_ranks=(1 2) ;;
  8) all_ranks=(3 4 6 8) ;;
  *) echo "RANKS: 2 or 8" >&2; exit 2 ;;
esac
source "$(dirname "$0")/../launch/expect.sh"
source "$(dirname "$0")/../support/exact_runs.sh"
cd "$work" || exit 1
prepare_exact

# Models: half of the features each, by the seed. One rank trains each of them, with one thread.
num_models=5
declare -A model model_names layouts_with is_in_a_model
for ((m = 0; m < num_models; ++m)); do
  names=() all=()
  for feature in "${model_features[@]:1}"; do  # without plain
    draw 2
    # A feature that no model has yet comes with the last two.
    ((drawn == 0 || (m >= num_models - 2 && ${is_in_a_model[$feature]:-0} == 0))) || continue
    features_of "$feature"
    names+=("$feature") all+=("${overrides[@]}")
    is_in_a_model[$feature]=1
  done
  model_names[$m]=${names[*]}
  model[$m]=$(printf '%s\n' "${all[@]}")
  overrides_of "${model[$m]}"
  exact_train "one$m" 1 1 1 1 "${overrides[@]}"
done

# How a layout computes, which nothing may tell by: drawn for each.
draw_way() {
  local data=$1 context=$2
  local share=$((24 / data)) accumulations=()
  way=() way_names=()
  for ((i = 1; i <= 6; ++i)); do ((share % i)) || accumulations+=("$i"); done
  draw ${#accumulations[@]}
  way+=("train.micro_batch=$((share / accumulations[drawn]))")
  way_names+=("accumulate${accumulations[$drawn]}")
  draw 4
  case $drawn in
    0) way+=(activations.policy=recompute); way_names+=(recompute) ;;
    1) way+=(activations.policy=spill); way_names+=(spill) ;;
    2) way+=(activations.policy=spill activations.store=hdf5 "activations.folder=$work"); way_names+=(spill_file) ;;
  esac
  if ((context > 1)); then
    draw 3
    case $drawn in
      0) way+=(parallel.context.layout=contiguous); way_names+=(contiguous) ;;
      1) way+=("parallel.context.ring=$context" parallel.context.method=all_gather); way_names+=(gather) ;;
    esac
  fi
  draw 3
  threads=$((1 << drawn))
  ((data * context > 4 && threads > 2)) && threads=2
  way+=("run.threads=$threads")
  way_names+=("threads$threads")
}

count=0 num_stopped=0
for ranks in "${all_ranks[@]}"; do
  mapfile -t lines < <(layouts "$ranks")
  for line in "${lines[@]}"; do
    read -r data context expert <<<"$line"
    m=$((count % num_models))
    overrides_of "${model[$m]}"
    draw_way "$data" "$context"
    run=$data.$context.$expert
    # Every sixth stops after 13 and 31 steps, and goes on elsewhere.
    if ((count % 6 == 4)); then
      way_names+=(resume)
      num_steps=13 exact_train "$run" 2 1 2 2 "${overrides[@]}"
      num_steps=31 exact_train "$run" 3 3 1 3 "${overrides[@]}"
    fi
    exact_train "$run" "$ranks" "$data" "$context" "$expert" "${overrides[@]}" "${way[@]}" &&
      compare_runs "$run" "one$m" && echo "equal: $run ${way_names[*]}; model: ${model_names[$m]}"
    for name in ${model_names[$m]} "${way_names[@]}"; do
      layouts_with[$name]=$((${layouts_with[$name]:-0} + 1))
    done
    rm -rf "$run"
    count=$((count + 1))
  done
done

# Another instruction set has other bits: a run that goes on with one says so, and ranks with several do not start.
other_machine() {
  local numbers=(run.output=other train.num_steps=4 parallel.expert=1)
  SWITCHYARD_MAX_ISA=sse4 expect 0 "$switchyard" train exact.yaml "${exact_model[@]}" "${numbers[@]}" train.num_steps=2
  expect 0 "$switchyard" train exact.yaml "${exact_model[@]}" "${numbers[@]}"
  [[ $out$err == *"trained with the instruction set sse4; here it is "*": the last bits"* ]] ||
    fail "a run on another instruction set does not say so: $out$err"
  expect 0 "$switchyard" checkpoint show other
  [[ $out == *"exact: instruction set "* ]] || fail "the checkpoint does not tell its instruction set: $out"
  numbers[0]=run.output=mixed
  expect 2 "$mpiexec" -n 1 env SWITCHYARD_MAX_ISA=sse4 "$switchyard" train exact.yaml "${exact_model[@]}" "${numbers[@]}" \
    : -n 1 "$switchyard" train exact.yaml "${exact_model[@]}" "${numbers[@]}"
  expect_lines 1 "set SWITCHYARD_MAX_ISA=sse4 for all ranks"
}

# A term that no sum can hold ends the run with code 17 and the name of its parameter.
too_large() {
  expect 17 "$mpiexec" -n 2 "$switchyard" train exact.yaml "${exact_model[@]}" run.output=large \
    parallel.expert=2 numerics.fraction_bits=60
  [[ $out$err == *"step 1: the gradient of "*".weight"*"too large for an exact sum (above "*"numerics.fraction_bits than 60"* ]] ||
    fail "a sum that overflows is not told: $out$err"
}

# units NAME KEY=VALUE "RANKS DATA CONTEXT EXPERT"...: units of several rows, as parts of a sequence and as whole
# ones, against one rank.
units() {
  local name=$1 layout more=()
  shift
  [[ $1 == *max_context* ]] || more=(numerics.max_context=1)
  exact_train "$name" 1 1 1 1 train.micro_batch=4 "$1" "${more[@]}"
  for layout in "${@:2}"; do
    read -r ranks data context expert <<<"$layout"
    exact_train unit "$ranks" "$data" "$context" "$expert" train.micro_batch=2 run.threads=2 "$1" "${more[@]}" &&
      compare_runs unit "$name" && echo "equal: $layout with $name"
    rm -rf unit
  done
}

# Kinds of routers, which exclude each other: some steps of each on three layouts.
routers() {
  local num_steps=12 feature layout
  for feature in "${router_features[@]}"; do
    features_of "$feature"
    exact_train "$feature" 1 1 1 1 "${overrides[@]}"
    for layout in "2 2 1 2" "3 1 3 1" "4 2 2 4"; do
      read -r ranks data context expert <<<"$layout"
      exact_train router "$ranks" "$data" "$context" "$expert" "${overrides[@]}" "train.micro_batch=$((24 / data / 3))" &&
        compare_runs router "$feature" && echo "equal: $layout with $feature"
      rm -rf router
    done
  done
}

# Five micro-steps, of which 24 sequences have none.
five_micro_steps() {
  local num_steps=8 layout
  exact_train thirty 1 1 1 1 train.global_batch=30
  for layout in "2 2 1 2" "3 1 3 3" "6 6 1 2"; do
    read -r ranks data context expert <<<"$layout"
    exact_train five "$ranks" "$data" "$context" "$expert" train.global_batch=30 "train.micro_batch=$((30 / data / 5))" &&
      compare_runs five thirty && echo "equal: $layout accumulate5"
    rm -rf five
  done
}

# The near ties are there: in fast mode a layout of these leaves the curve of one rank. And exact mode computes
# what fast mode does.
if [[ $3 == 2 ]]; then
  other_machine
  too_large
  overrides_of "${model[0]}"
  exact_train fast1 1 1 1 1 "${overrides[@]}" numerics.exact=false
  exact_train fast2 2 1 2 2 "${overrides[@]}" numerics.exact=false
  cmp -s <(curve fast1) <(curve fast2) && fail "fast mode is exact, too: the runs show nothing"
  paste -d' ' <(curve fast1) <(curve one0) | grep -E '^step [123]: "(loss|grad_norm)"' | awk '
    { d = ($4 - $8) / $8; if (d > 1e-5 || d < -1e-5) { print; bad = 1 } } END { exit bad || NR != 6 }' ||
    fail "the first steps are not those of fast mode"
else
  routers
  units max_context4 numerics.max_context=4 "2 1 2 1" "4 1 4 2" "4 2 2 4"
  five_micro_steps
  units sequences2 "numerics.unit_sequences=2" "3 3 1 3" "2 2 1 1"
  for name in "${!layouts_with[@]}"; do
    ((layouts_with[$name] >= 3)) || fail "only ${layouts_with[$name]} layouts have $name"
  done
  [[ ${#layouts_with[@]} -ge 24 ]] || fail "few features: ${!layouts_with[*]}"
fi
echo "$count layouts"
finish
