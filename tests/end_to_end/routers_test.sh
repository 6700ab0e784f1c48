#!/usr/bin/env bash
# Every kind of router trains, goes on from its checkpoint, is evaluated and generates; and where sums are
# exact, every bit is that of one rank, also with sequences split over the ranks.
#   routers_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"

write_config small.yaml <<'YAML'
train: {num_steps: 30, global_batch: 12, micro_batch: 1}
optimizer: {learning_rate: 0.01, warmup_steps: 2, min_learning_rate: 0.01}
checkpoint: {every: 0}
YAML
prepare_corpus "$switchyard"
# The losses of a run's steps, one a line.
losses() { sed -nE 's/.*"loss": ?([0-9.]+).*/\1/p' "$1/metrics.jsonl"; }

digest() { "$switchyard" checkpoint show "$1" --digest | awk '{ print $1 }'; }

# check [NAME=]KIND SETTING...: with experts.router.kind=KIND and the settings, in runs called NAME
check() {
  local name=${1%%=*} kind=${1#*=}
  shift
  local settings=(experts.router.kind="$kind" run.output="$name" "$@")
  expect 0 on_ranks train small.yaml parallel.expert="$ranks" "${settings[@]}"
  losses "$name" > "$name.losses"
  awk 'NR == 1 { first = $1 } END { exit !(NR == 30 && $1 < first - 0.5) }' "$name.losses" || fail "$name: nothing learnt in 30 steps: $(cat "$name.losses")"
  expect 0 on_ranks train small.yaml parallel.expert="$ranks" "${settings[@]}" train.num_steps=31
  [[ $out == *"resuming from step 30"* ]] || fail "$name does not go on: $out"
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

check top_k experts.router.score=sigmoid experts.router.groups=5 experts.router.top_groups=3 \
  experts.router.scale=2.5 experts.bias_rate=0.01
check noisy_top_k experts.router.jitter=0.01 experts.balance_loss=importance_and_load experts.balance_weight=0.1
check quantiles=top_k experts.bias_rate=0.5 experts.bias_rule=quantile experts.balance_weight=0
check gshard
check sinkhorn experts.allow_future=true experts.top_k=1
check base experts.allow_future=true experts.router.score=sigmoid
check expert_choice experts.allow_future=true experts.router.capacity=1.5
check hash experts.latent=12
check balanced
check imbalanced experts.router.imbalance=2

# What sees the future is not had by accident.
expect 2 on_ranks train small.yaml experts.router.kind=expert_choice run.output=refused
expect_lines 1 "write allow_future: true if that is meant, or another kind"
[[ ! -e refused ]] || fail "a refused run left a folder"
expect 2 "$switchyard" plan small.yaml --ranks 1 --target cuda experts.router.kind=gshard
expect_lines 1 "on a card there are the kinds top_k, hash and balanced"
expect 2 "$switchyard" plan small.yaml --ranks 1 --target cuda experts.dispatch.kind=hierarchical experts.dispatch.chunks=2
expect_lines 1 "on a card tokens travel by all_to_all; write that in place of hierarchical"
expect_lines 1 "on a card all rows travel at once; write chunks: 1"
expect 0 "$switchyard" plan small.yaml --ranks 1 --target cuda experts.router.kind=balanced
finish
