#!/usr/bin/env bash
# Experts made of a dense model's feed-forwards: the first loss is the dense model's where the method says so, and
# the model trains.
#   upcycle_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"

write_config small.yaml <<'YAML'
train: {num_steps: 8, global_batch: 12, micro_batch: 1}
optimizer: {learning_rate: 0.01, warmup_steps: 3, schedule: constant_decay}
YAML
prepare_corpus "$switchyard"
train() { "$mpiexec" -n "$ranks" "$switchyard" train small.yaml "$@"; }
# cross_entropy RUN: of its first step.
cross_entropy() { sed -nE '1s/.*"cross_entropy": ([^,}]*).*/\1/p' "$1/metrics.jsonl"; }
# is_near A B LIMIT: relative.
is_near() { awk -v a="$1" -v b="$2" -v limit="$3" 'BEGIN { d = (a - b) / b; exit !(a > 0 && b > 0 && d < limit && -d < limit) }'; }

dense=(experts.num_experts=0 model.dense_intermediate=48 model.embedding_std=0.5)
expect 0 train "${dense[@]}"
expect 0 train "${dense[@]}" run.output=further checkpoint.start_from=run train.num_steps=1
wanted=$(cross_entropy further)

# upcycled NAME OPTIONS... -- OVERRIDES...: makes it and begins a run, which takes 6 steps.
upcycled() {
  local name=$1 options=()
  shift
  while [[ $1 != -- ]]; do options+=("$1"); shift; done
  shift
  expect 0 "$switchyard" upcycle run small.yaml --output "up-$name" "${options[@]}" model.embedding_std=0.5 "$@"
  made=$out
  expect 0 train run.output="$name" checkpoint.start_from="up-$name" train.num_steps=6 parallel.expert="$ranks" \
    model.embedding_std=0.5 "$@"
}
expect_loss() {
  [[ $made == *"the first loss is the dense model's"* ]] || fail "$1: $made"
  is_near "$(cross_entropy "$1")" "$wanted" 2e-6 || fail "$1: first cross-entropy $(cross_entropy "$1"), not $wanted"
}
upcycled copies -- experts.num_experts=4 experts.intermediate=48
expect_loss copies
upcycled parts -- experts.num_experts=6 experts.top_k=4 experts.intermediate=24 experts.bias=true experts.router.logit_bias=true
[[ $made == *"2 layers with 6 experts: 3 copies of a feed-forward, each in 2 parts"* ]] || fail "parts: $made"
expect_loss parts
upcycled raw --router zero -- experts.num_experts=4 experts.intermediate=48 experts.normalize_top_k=false
expect_loss raw
upcycled sigmoid --router zero -- experts.num_experts=4 experts.intermediate=24 experts.normalize_top_k=false \
  experts.router.score=sigmoid experts.router.scale=2.5 experts.bias_rate=0.001
expect_loss sigmoid
upcycled shared -- experts.num_experts=4 experts.intermediate=48 experts.shared=1 experts.first_dense=1 model.dense_intermediate=48
expect_loss shared
upcycled noisy --noise 0.5 -- experts.num_experts=4 experts.intermediate=48
[[ $made == *"is near, but not, the dense model's"* ]] || fail "noise: $made"
if is_near "$(cross_entropy noisy)" "$wanted" 2e-6; then fail "noise changes nothing"; fi
is_near "$(cross_entropy noisy)" "$wanted" 0.2 || fail "noise: $(cross_entropy noisy) is far from $wanted"

expect 0 "$switchyard" checkpoint show parts
[[ $out == *"began with weights, upcycled of $PWD/run/checkpoints/step-00000008 (step 8,"*"began with weights of $PWD/up-parts"* ]] ||
  fail "the lineage: $out"

# What does not divide, another model and experts of experts are refused, and nothing is written.
refuse() {
  local code=$1 text=$2
  shift 2
  expect "$code" "$switchyard" upcycle "$@" --output none
  expect_lines 1 "$text"
  [[ ! -e none ]] || fail "a refused command left a folder"
}
refuse 2 "experts.intermediate = 48 / 36 is not whole" run small.yaml experts.intermediate=36
refuse 2 "the dense layers have experts.activation swiglu, and the experts made of them would have clamped_swiglu" \
  run small.yaml experts.intermediate=48 experts.activation=clamped_swiglu
refuse 2 "experts.num_experts / its parts = 5 / 2 is not whole" run small.yaml experts.intermediate=24
refuse 4 "was trained with model.num_heads 4, not 8" run small.yaml experts.intermediate=48 model.num_heads=8 model.num_kv_heads=4 model.head_dim=4
refuse 4 "of which experts could be made" copies small.yaml experts.intermediate=48
expect 2 "$switchyard" upcycle run small.yaml --output up-parts experts.intermediate=48
expect_lines 1 "up-parts has checkpoints already"
finish
