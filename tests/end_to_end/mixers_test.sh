#!/usr/bin/env bash
# The program with recurrent mixers: sequences split over ranks, another layout that goes on, evaluation, generation beyond
# the trained length, the plan, the key's old name.
#   mixers_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
mpiexec=$1 switchyard=$2 ranks=$3
source "$(dirname "$0")/../launch/expect.sh"
source "$(dirname "$0")/../support/small_run.sh"
cd "$work" || exit 1

write_config small.yaml <<'YAML'
train: {num_steps: 8, global_batch: 8, micro_batch: 2}
optimizer: {learning_rate: 0.003, warmup_steps: 2}
checkpoint: {every: 4, keep: 4}
YAML
prepare_corpus "$switchyard"
value() { sed -nE "s/.*\"$2\": ([^,}]+).*/\1/p" "$1/metrics.jsonl" | tail -n 1; }
near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(a > 0 && d <= 1e-4 * a) }'; }
losses() { sed -nE 's/.*"step": ([0-9]+).*"loss": ([0-9.]+).*/\1 \2/p' "$1/metrics.jsonl"; }

for kinds in "{kind: gated_delta, conv: 4}, {kind: full, conv: 4}" "{kind: ssd, conv: 4}, {kind: linear}"; do
  name=${kinds:7:3}
  mixer="model.mixer=[$kinds]"
  context=("$mixer" parallel.context="$ranks" parallel.expert="$ranks" run.output="$name")
  expect 0 "$mpiexec" -n "$ranks" "$switchyard" train small.yaml "${context[@]}"
  expect 0 "$switchyard" train small.yaml "$mixer" run.output="$name-alone"
  while read -r step split alone; do
    near "$split" "$alone" || fail "$name: step $step: loss $split on $ranks ranks, $alone on one"
  done < <(join <(losses "$name") <(losses "$name-alone"))
  [[ $(losses "$name" | wc -l) -eq 8 ]] || fail "$name: not eight losses"

  # What is planned is what is used.
  expect 0 "$switchyard" plan small.yaml "${context[@]}" --ranks "$ranks" --rows "$(value "$name" max_rows)"
  planned=$(sed -nE 's/^ *peak +([0-9]+).*/\1/p' <<<"$out")
  [[ $planned == "$(value "$name" memory_bytes)" ]] || fail "$name: planned $planned, used $(value "$name" memory_bytes)"

  # One rank goes on from what all ranks saved, with the key's old name, and recomputes.
  rm -r "$name"/checkpoints/step-00000008
  expect 0 "$switchyard" train small.yaml "model.attention=[$kinds]" run.output="$name" activations.policy=recompute
  [[ $out == *"resuming from step 4"* && $err != *"model."* ]] || fail "$name: did not go on: $out $err"
  near "$(losses "$name" | tail -n 1 | cut -d' ' -f2)" "$(losses "$name-alone" | tail -n 1 | cut -d' ' -f2)" ||
    fail "$name: other losses after going on"

  expect 0 "$switchyard" generate "$name-alone" --ids --tokens 20 --temperature 0
  cp "$work/out" first.ids
  expect 0 "$switchyard" generate "$name-alone" --ids --tokens 31 --temperature 0
  head -n "$(wc -l < first.ids)" "$work/out" | cmp -s - first.ids || fail "$name: other tokens when more are asked for"
done

# Without attention nothing ends at the trained length of 32 tokens.
[[ $(wc -l < "$work/out") -gt 32 || -s $work/out ]] || fail "no tokens: $out"
expect 0 "$switchyard" generate ssd-alone --ids --tokens 200 --temperature 1 --seed 3
[[ $err != *"was trained on sequences"* ]] || fail "a recurrence ended at the trained length: $err"

# Random features and Infini-attention: ranks hold whole segments, or it is said why not; the plan is exact.
infini=("model.mixer=[{kind: infini, segment: 8, conv: 2}, {kind: linear, features: performer, num_features: 24}]")
expect 0 "$mpiexec" -n "$ranks" "$switchyard" train small.yaml "${infini[@]}" parallel.context="$ranks" train.num_steps=3 run.output=infini
expect 0 "$switchyard" train small.yaml "${infini[@]}" train.num_steps=3 run.output=infini-alone
near "$(losses infini | tail -n 1 | cut -d' ' -f2)" "$(losses infini-alone | tail -n 1 | cut -d' ' -f2)" ||
  fail "infini: other losses on $ranks ranks"
expect 0 "$switchyard" plan small.yaml "${infini[@]}" parallel.context="$ranks" --ranks "$ranks" --rows "$(value infini max_rows)"
planned=$(sed -nE 's/^ *peak +([0-9]+).*/\1/p' <<<"$out")
[[ $planned == "$(value infini memory_bytes)" ]] || fail "infini: planned $planned, used $(value infini memory_bytes)"
expect 0 "$switchyard" generate infini-alone --ids --tokens 20 --temperature 0
if ((ranks > 1)); then
  expect 2 "$mpiexec" -n "$ranks" "$switchyard" train small.yaml "model.mixer={kind: infini, segment: 12}" parallel.context="$ranks"
  [[ $err == *"would begin at position "*", within a segment of 12 tokens of layer 0"* ]] || fail "a cut segment: $err"
fi

# Gated branches beside classes by a hash, and Transformer-XL: the plan is exact where sequences are split, and one rank goes on from what
# all ranks saved.
heads=(model.num_heads=4 model.num_kv_heads=4)
gates="{kind: hierarchical, block: 4, window_blocks: 1, selected: 2, summaries: mean, combine: gates, conv: 2}"
sparse=("${heads[@]}" "model.mixer=[$gates, {kind: lsh, window: 4, buckets: 4, rounds: 2}]")
xl=("model.mixer={kind: segment, length: 8, memory: 8}" model.position=xl)
for name in sparse xl; do
  declare -n settings=$name
  context=("${settings[@]}" parallel.context="$ranks" run.output="$name")
  expect 0 "$mpiexec" -n "$ranks" "$switchyard" train small.yaml "${context[@]}"
  expect 0 "$switchyard" plan small.yaml "${context[@]}" --ranks "$ranks" --rows "$(value "$name" max_rows)"
  planned=$(sed -nE 's/^ *peak +([0-9]+).*/\1/p' <<<"$out")
  [[ $planned == "$(value "$name" memory_bytes)" ]] || fail "$name: planned $planned, used $(value "$name" memory_bytes)"
  rm -r "$name"/checkpoints/step-00000008
  expect 0 "$switchyard" train small.yaml "${settings[@]}" run.output="$name"
  [[ $out == *"resuming from step 4"* ]] || fail "$name: did not go on: $out"
  expect 0 "$switchyard" train small.yaml "${settings[@]}" run.output="$name-alone"
  near "$(losses "$name" | tail -n 1 | cut -d' ' -f2)" "$(losses "$name-alone" | tail -n 1 | cut -d' ' -f2)" ||
    fail "$name: other losses on $ranks ranks"
  expect 0 "$switchyard" generate "$name-alone" --ids --tokens 20 --temperature 0
done

# Exact runs keep their bits whoever holds which positions, also where these are told by distance or by a table.
bits() { sed -nE 's/.*("loss": [0-9.e-]+).*("grad_norm": [0-9.e-]+).*/\1 \2/p' "$1/metrics.jsonl"; }
for position in alibi relative absolute sinusoidal none; do
  exact=("model.position=$position" "model.mixer=[{kind: window, window: 9}, {}]" numerics.exact=true
    numerics.max_context="$ranks" train.num_steps=3)
  expect 0 "$mpiexec" -n "$ranks" "$switchyard" train small.yaml "${exact[@]}" parallel.context="$ranks" run.output="$position"
  expect 0 "$switchyard" train small.yaml "${exact[@]}" run.output="$position-alone"
  [[ $(bits "$position" | wc -l) -eq 3 ]] || fail "$position: not three steps"
  diff <(bits "$position") <(bits "$position-alone") || fail "$position: other bits on $ranks ranks"
done

# Windows beside the first tokens: of each document where documents are split over ranks, also exact, and in generation.
globals=("model.mixer={kind: window, window: 6, globals: 3, sinks: 1}" data.document_mask=true numerics.exact=true
  numerics.max_context="$ranks" train.num_steps=3)
expect 0 "$mpiexec" -n "$ranks" "$switchyard" train small.yaml "${globals[@]}" parallel.context="$ranks" run.output=globals
expect 0 "$switchyard" train small.yaml "${globals[@]}" run.output=globals-alone
diff <(bits globals) <(bits globals-alone) || fail "globals: other bits on $ranks ranks"
expect 0 "$switchyard" generate globals-alone --tokens 9 --temperature 0

# Patterns of blocks and segments: exact, the plan, and generation.
blocks=("model.mixer=[{kind: blocks, block: 4, window_blocks: 2, global_blocks: 1, random_blocks: 2}, {kind: blocks, pattern: fixed, stride: 6, summary: 2}, {kind: blocks, pattern: strided, stride: 5}, {kind: segment, length: 7, memory: 5}]"
  model.num_layers=4 numerics.exact=true numerics.max_context="$ranks" train.num_steps=3)
expect 0 "$mpiexec" -n "$ranks" "$switchyard" train small.yaml "${blocks[@]}" parallel.context="$ranks" run.output=blocks
expect 0 "$switchyard" train small.yaml "${blocks[@]}" run.output=blocks-alone
[[ $(bits blocks | wc -l) -eq 3 ]] || fail "blocks: not three steps"
diff <(bits blocks) <(bits blocks-alone) || fail "blocks: other bits on $ranks ranks"
expect 0 "$switchyard" plan small.yaml "${blocks[@]}" parallel.context="$ranks" --ranks "$ranks" --rows "$(value blocks max_rows)"
planned=$(sed -nE 's/^ *peak +([0-9]+).*/\1/p' <<<"$out")
[[ $planned == "$(value blocks memory_bytes)" ]] || fail "blocks: planned $planned, used $(value blocks memory_bytes)"
expect 0 "$switchyard" generate blocks-alone --ids --tokens 9 --temperature 0

# A compressed memory, of whole sequences: the plan, documents, and generation.
compressed=("model.mixer=[{kind: segment, length: 8, memory: 4, compressed: 3, ratio: 2}, {kind: segment, length: 8, memory: 8}]"
  model.position=none data.document_mask=true train.num_steps=3)
expect 0 "$switchyard" train small.yaml "${compressed[@]}" run.output=compressed
expect 0 "$switchyard" plan small.yaml "${compressed[@]}" --ranks 1 --rows "$(value compressed max_rows)"
planned=$(sed -nE 's/^ *peak +([0-9]+).*/\1/p' <<<"$out")
[[ $planned == "$(value compressed memory_bytes)" ]] || fail "compressed: planned $planned, used $(value compressed memory_bytes)"
expect 0 "$switchyard" generate compressed --ids --tokens 20 --temperature 0
if ((ranks > 1)); then
  expect 2 "$mpiexec" -n "$ranks" "$switchyard" train small.yaml "${compressed[@]}" parallel.context="$ranks"
  [[ $err == *"do not exchange the rows that a compressed memory pools"* ]] || fail "compressed, split: $err"
fi

# Layers that are their mixer alone, on a made-up task: losses and accuracy are those of one rank, by eval too; the plan is
# exact; no family of published models says such a layer.
expect 0 "$switchyard" prepare --synthetic copy --length 32 --size 5 --symbols 2 --documents 400 --output copy.h5
alone=(data.path=copy.h5 data.loss_mask=true model.feed_forward=none "model.mixer=[{kind: gated_delta, conv: 4}, {conv: 4}]"
  experts.num_experts=0 train.num_steps=20 evaluate.every=20)
expect 0 "$mpiexec" -n "$ranks" "$switchyard" train small.yaml "${alone[@]}" parallel.context="$ranks" run.output=bare
expect 0 "$switchyard" train small.yaml "${alone[@]}" run.output=bare-alone
for key in validation_loss loss; do near "$(value bare $key)" "$(value bare-alone $key)" || fail "bare: $key differs on $ranks ranks"; done
accuracy=$(value bare validation_accuracy)
awk -v a="$accuracy" -v b="$(value bare-alone validation_accuracy)" 'BEGIN { d = a - b; exit !(a > 0 && d * d < 0.0025) }' ||
  fail "bare: an accuracy of $accuracy, on one rank $(value bare-alone validation_accuracy)"
expect 0 "$switchyard" eval small.yaml "${alone[@]}" run.output=bare
again=$(sed -nE 's/.*  accuracy ([0-9.]+)  tokens .*/\1/p' <<<"$out")
awk -v a="$accuracy" -v b="$again" 'BEGIN { d = a - b; exit !(b > 0 && d * d < 0.0025) }' || fail "eval: not $accuracy: $out"
expect 0 "$switchyard" plan small.yaml "${alone[@]}" parallel.context="$ranks" --ranks "$ranks"
planned=$(sed -nE 's/^ *peak +([0-9]+).*/\1/p' <<<"$out")
[[ $planned == "$(value bare memory_bytes)" ]] || fail "bare: planned $planned, used $(value bare memory_bytes)"
expect 0 "$switchyard" generate bare --ids --tokens 3 --temperature 0
expect 2 "$switchyard" export bare --output published
[[ $err == *model.feed_forward* ]] || fail "bare: exported, or another reason: $err"

# Refused before any work, with the reason.
expect 2 "$switchyard" train small.yaml model.feed_forward=none experts.every=1
expect_lines 1 "feed_forward = none counts only for layers without experts"
expect 2 "$switchyard" train small.yaml "model.mixer={slots: 8}" numerics.exact=true
expect_lines 1 "the gradient of memory slots"
expect 2 "$switchyard" train small.yaml "model.mixer={kind: window, window: 8, ramp: 4}" numerics.exact=true
expect_lines 1 "the penalty of learned spans"
expect 2 "$switchyard" train small.yaml "model.mixer={kind: segment, compressed: 4}" model.position=xl numerics.exact=true
expect_lines 1 "what teaches the pooling of a compressed memory"
expect 2 "$switchyard" train small.yaml "model.mixer={kind: segment, compressed: 4}"
expect_lines 1 "compressed = 4 has no rotary positions"
expect 2 "$switchyard" train small.yaml "model.mixer={kind: segment, memory: 6, compressed: 4}" model.position=none
expect_lines 1 "memory = 6 is no multiple of ratio = 4"
expect 2 "$switchyard" train small.yaml "model.mixer={globals: 4}"
expect_lines 1 "globals = 4 counts only with kind window"
expect 2 "$switchyard" train small.yaml model.position=relative model.position.max_distance=10
expect_lines 1 "max_distance = 10 is not beyond buckets / 2 = 16"
expect 2 "$switchyard" train small.yaml "model.mixer={kind: ssd}" numerics.exact=true
expect_lines 1 "numerics.exact forbids that"
expect 2 "$switchyard" train small.yaml "model.mixer={kind: infini}"
expect_lines 1 "kind infini needs a segment"
expect 2 "$switchyard" train small.yaml "model.mixer={kind: linear, num_features: 8}"
expect_lines 1 "num_features = 8 counts only with features performer"
expect 2 "$switchyard" train small.yaml "model.mixer={kind: infini, segment: 4}" model.position=alibi
expect_lines 1 "no model.position alibi"
expect 2 "$switchyard" train small.yaml "model.mixer={kind: ssd, window: 4}"
expect_lines 1 "window = 4 counts only with kind window"
finish
