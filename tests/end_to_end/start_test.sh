#!/usr/bin/env bash
# A run that begins with another one's checkpoint: with weights, with moments, too, or with all; what becomes of
# step, schedule and data; where it came from is told by every checkpoint after it.
#   start_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"

write_config small.yaml <<'YAML'
train: {num_steps: 6, global_batch: 12, micro_batch: 1}
optimizer: {learning_rate: 0.01, warmup_steps: 3, schedule: constant_decay}
checkpoint: {every: 3, keep: 9}
YAML
prepare_corpus "$switchyard"
train() { "$mpiexec" -n "$ranks" "$switchyard" train small.yaml parallel.expert="$ranks" experts.bias_rate=0.001 "$@"; }
# figure RUN STEP NAME: as metrics.jsonl has it.
figure() { sed -nE "s/^\{\"step\": $2, .*\"$3\": ([^,}]*).*/\1/p" "$1/metrics.jsonl"; }
is_less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && b != "" && a < b) }'; }

expect 0 train
course=$(sed -nE 's/^ *"course": "([0-9a-f]{32})".*/\1/p' run/run.json)

expect 0 train run.output=weights checkpoint.start_from=run train.num_steps=2
[[ $out == *"beginning with weights of step 6 ($PWD/run/checkpoints/step-00000006); step, schedule and position in the data begin anew"* ]] ||
  fail "no word of the beginning: $out"
[[ $(figure weights 1 learning_rate) == "$(figure run 1 learning_rate)" ]] || fail "the schedule did not begin anew"
is_less "$(figure weights 1 cross_entropy)" "$(figure run 1 cross_entropy)" ||
  fail "step 1, on the data of step 1, is no better than an untrained model: $(figure weights 1 cross_entropy)"
expect 0 "$switchyard" checkpoint show weights
from="began with weights of $PWD/run/checkpoints/step-00000006 (step 6, 2304 tokens, course $course)"
[[ $out == *"$from"* ]] || fail "the lineage is not told: $out"

# Moments go on, too, and count their updates.
expect 0 train run.output=moments checkpoint.start_from=run/checkpoints/step-00000003 checkpoint.start_with=weights_and_moments train.num_steps=2
[[ $(figure moments 1 learning_rate) == "$(figure run 1 learning_rate)" ]] || fail "the schedule did not begin anew"
expect 0 "$switchyard" checkpoint show moments
[[ $out == *"its moments had 3 updates before step 1"* ]] || fail "no word of earlier updates: $out"

# With all, the next steps are those that the other run would have taken.
expect 0 train run.output=all checkpoint.start_from=run checkpoint.start_with=all train.num_steps=8
cp -r run whole
expect 0 train run.output=whole train.num_steps=8
for step in 7 8; do
  [[ -n $(figure whole $step loss) && $(figure all $step loss) == "$(figure whole $step loss)" ]] ||
    fail "step $step: loss $(figure all $step loss), not $(figure whole $step loss)"
done
expect 0 "$switchyard" checkpoint diff all whole

# A restart goes on from its own checkpoint, also when the other one is gone, and the lineage grows.
mv run elsewhere
expect 0 train run.output=weights checkpoint.start_from=run train.num_steps=4
[[ $out == *"resuming from step 2"* ]] || fail "it began again: $out"
expect 0 train run.output=third checkpoint.start_from=weights train.num_steps=1
expect 0 "$switchyard" checkpoint show third
[[ $out == *"$from"*"began with weights of $PWD/weights/checkpoints/step-00000004"* ]] || fail "the lineage: $out"

# What cannot be meant is refused before anything is made.
expect 4 train run.output=never checkpoint.start_from=run
expect_lines 1 "checkpoint.start_from: run:"
[[ ! -e never ]] || fail "a refused start left a folder"
expect 4 train run.output=never checkpoint.start_from=weights model.num_heads=8 model.num_kv_heads=4 model.head_dim=4
expect_lines 1 "was trained with model.num_heads 4, not 8"
finish
