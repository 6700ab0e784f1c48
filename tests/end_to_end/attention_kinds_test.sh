#!/usr/bin/env bash
# What published models have in their attention, and gpt-oss in its experts, on the program: each kind trains, goes on from its checkpoint, is
# evaluated and generates; and where sums are exact, every bit is that of one rank, with sequences split over the ranks.
#   attention_kinds_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"

write_config small.yaml <<'YAML'
train: {num_steps: 20, global_batch: 12, micro_batch: 1}
optimizer: {learning_rate: 0.01, warmup_steps: 2, min_learning_rate: 0.01}
checkpoint: {every: 0}
YAML
prepare_corpus "$switchyard"
losses() { sed -nE 's/.*"loss": ?([0-9.]+).*/\1/p' "$1/metrics.jsonl"; }
digest() { "$switchyard" checkpoint show "$1" --digest | awk '{ print $1 }'; }

# check NAME SETTING...
check() {
  local name=$1
  shift
  local settings=(run.output="$name" "$@")
  expect 0 on_ranks train small.yaml parallel.expert="$ranks" "${settings[@]}"
  losses "$name" > "$name.losses"
  awk 'NR == 1 { first = $1 } END { exit !(NR == 20 && $1 < first - 0.5) }' "$name.losses" ||
    fail "$name: nothing learnt in 20 steps: $(cat "$name.losses")"
  expect 0 on_ranks train small.yaml parallel.expert="$ranks" "${settings[@]}" train.num_steps=21
  [[ $out == *"resuming from step 20"* ]] || fail "$name does not go on: $out"
  expect 0 on_ranks eval small.yaml parallel.expert="$ranks" "${settings[@]}"
  expect 0 "$switchyard" generate "$name" --prompt The --tokens 4
  ((ranks > 1)) || return
  local exact=(numerics.exact=true numerics.max_context="$ranks" train.num_steps=3)
  expect 0 "$switchyard" train small.yaml "${settings[@]}" "${exact[@]}" run.output="$name-alone"
  expect 0 on_ranks train small.yaml parallel.expert="$ranks" parallel.context="$ranks" \
    "${settings[@]}" "${exact[@]}" run.output="$name-split"
  local alone
  alone=$(digest "$name-alone")
  [[ $alone =~ ^[0-9a-f]{16}$ && $alone == "$(digest "$name-split")" ]] || fail "$name: another result on $ranks ranks"
}

check head_norm model.qk_norm=head model.qkv_bias=true model.output_bias=true
check whole_norm model.qk_norm=whole activations.policy=recompute
latent=(model.num_kv_heads=4 model.latent.kv_rank=12 model.latent.nope_dim=8 model.latent.rope_dim=4 model.latent.value_dim=6)
check latent "${latent[@]}" model.latent.q_rank=10 activations.policy=recompute
check latent_yarn "${latent[@]}" model.rope_scaling.kind=yarn model.rope_scaling.factor=4 \
  model.rope_scaling.original_length=16 model.rope_scaling.mscale=1 model.rope_scaling.mscale_all_dim=0.5
check llama3 model.rope_scaling.kind=llama3 model.rope_scaling.factor=4 model.rope_scaling.original_length=16 \
  model.rope_scaling.beta_fast=4

check gpt_oss model.qkv_bias=true model.output_bias=true experts.bias=true experts.router.logit_bias=true \
  experts.router.softmax_over=chosen experts.activation=clamped_swiglu experts.swiglu_limit=2 experts.shared=1 \
  'model.mixer=[{kind: window, window: 8, sinks: 1}, {kind: full, sinks: 1}]' model.clip_qkv=1 activations.policy=recompute

expect 2 on_ranks train small.yaml experts.router.kind=hash experts.router.logit_bias=true run.output=refused
expect_lines 1 "kind hash has no logits; leave logit_bias out or change the kind"
expect 2 on_ranks train small.yaml "${latent[@]}" model.clip_qkv=1 run.output=refused
expect_lines 1 "latent attention (kv_rank = 12) goes without it; write 0"
expect 2 on_ranks train small.yaml "${latent[@]}" model.qk_norm=head run.output=refused
expect_lines 1 "latent attention (kv_rank = 12) goes without it; write none"
[[ ! -e refused ]] || fail "a refused run left a folder"
finish
