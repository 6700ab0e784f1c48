#!/usr/bin/env bash
# A trace of routing from RANKS ranks, replayed on 1, 2 and 3: the same losses, and where sums are exact the
# same bits; what a stopped and continued run traces; what `trace show` makes of it; what is refused.
#   replay_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"

write_config small.yaml <<'YAML'
train: {num_steps: 6, global_batch: 12, micro_batch: 1}
optimizer: {learning_rate: 0.01, warmup_steps: 2, min_learning_rate: 0.01}
trace: {routing: true, steps: 1..6}
YAML
prepare_corpus "$switchyard"
losses() { sed -nE 's/.*"loss": ([0-9.]+), "cross_entropy.*/\1/p' "$1/metrics.jsonl"; }
digest() { "$switchyard" checkpoint show "$1" --digest | awk '{ print $1 }'; }
# train RANKS FOLDER WORD...
train() {
  expect 0 "$mpiexec" -n "$1" "$switchyard" train small.yaml run.output="$2" run.threads=1 model.sequence_length=48 "${@:3}"
}
exact=(numerics.exact=true numerics.max_context=12 model.embedding_std=0.02)
replay=(trace.routing=false trace.steps=none)

train "$ranks" exact parallel.context="$ranks" parallel.expert="$ranks" "${exact[@]}"
train "$ranks" plain parallel.expert="$ranks"
[[ $out == *"traced routing in plain/routing/steps-1-6"* ]] || fail "no note of the trace: $out"
for n in 1 2 3; do
  train "$n" "exact-$n" parallel.expert="$n" "${exact[@]}" "${replay[@]}" experts.router.replay=exact
  [[ $(losses "exact-$n" | wc -l) -eq 6 && $(losses "exact-$n") == "$(losses exact)" ]] ||
    fail "exact: other losses on $n ranks: $(losses "exact-$n")"
  [[ -n $(digest exact) && $(digest "exact-$n") == "$(digest exact)" ]] || fail "exact: another result on $n ranks"
  train "$n" "plain-$n" parallel.context="$n" "${replay[@]}" experts.router.replay=plain
  paste <(losses plain) <(losses "plain-$n") | awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > 1e-4) exit 1 } END { exit NR != 6 }' ||
    fail "other losses on $n ranks: $(paste <(losses plain) <(losses "plain-$n"))"
done

# A run that stops and goes on has all of its steps, and each once; one trained anew, only its own.
train 1 parts train.num_steps=4 checkpoint.every=2
train 2 parts checkpoint.every=4
[[ $(cd parts/routing && echo *) == "steps-1-2 steps-3-4 steps-5-6" ]] || fail "traces: $(ls parts/routing)"
train 1 parts-replayed "${replay[@]}" experts.router.replay=parts

expect 0 "$switchyard" trace show parts --coactivation pairs.csv --load load.csv
[[ $out == "parts: 6 steps from 1 to 6, 3456 tokens, top 2 of 5 experts"* ]] || fail "trace show: $out"
[[ $(wc -l < pairs.csv) -eq 21 && $(wc -l < load.csv) -eq 11 ]] || fail "pairs.csv: $(cat pairs.csv)"
# Each token has one pair in each layer, and two experts.
awk -F, 'NR > 1 { n[$1] += $4 } END { exit n[0] != 3456 || n[1] != 3456 }' pairs.csv || fail "pairs.csv: $(cat pairs.csv)"
awk -F, 'NR > 1 { n[$1] += $3 } END { exit n[0] != 6912 || n[1] != 6912 }' load.csv || fail "load.csv: $(cat load.csv)"
# Where experts should live by their loads, with a replica of the fullest one: an order that a run takes.
expect 0 "$switchyard" trace show parts --ranks 2 --replicas 1
order=$(grep '^experts.placement.order=' <<< "$out") || fail "no order: $out"
[[ $(grep -o '[0-9]' <<< "$order" | wc -l) -eq 6 ]] || fail "six places of five experts: $order"
expect 0 "$switchyard" plan small.yaml --ranks 2 parallel.expert=2 "$order"
expect 2 "$switchyard" trace show parts --replicas 1
expect 0 "$switchyard" trace show plain/routing/steps-1-6/trace.h5
expect 3 "$switchyard" trace show corpus.h5
expect_lines 1 "corpus.h5: is no trace of routing"

# How fast the traced choices travel: beside the made-up ones, and only in sizes of the trace.
bench() { expect "$1" "$mpiexec" -n 2 "$switchyard" bench dispatch --precision fp32 --steps 1 --warmup 0 --trace plain "${@:2}"; }
bench 0 --sizes 100x16x5x2
[[ $(grep -c "^fp32 .* traced " <<<"$out") -eq 3 ]] || fail "bench dispatch --trace: $out"
grep -q "^# traced: what layer [01] chose in step 6, its most chosen expert [1-9]" <<<"$out" || fail "no note: $out"
bench 2 --sizes 100x16x8x2
expect_lines 1 "plain was traced with 5 experts, top 2; end sizes with x5x2"

# What is missing is said before any step, once, and leaves nothing.
expect 3 "$mpiexec" -n 2 "$switchyard" train small.yaml run.output=more model.sequence_length=48 "${replay[@]}" \
  train.num_steps=7 experts.router.replay=plain
expect_lines 1 "plain has no step 7, and this run takes the steps 1 to 7"
expect 2 "$switchyard" train small.yaml run.output=other "${replay[@]}" experts.num_experts=4 \
  experts.router.replay=plain
expect_lines 1 "plain was traced with num_experts 5"
expect 2 "$switchyard" train small.yaml run.output=plain experts.router.replay=plain
expect_lines 1 "plain would be replaced by the trace of this run"
expect 2 "$switchyard" plan small.yaml trace.steps=none
expect_lines 1 "routing = true traces no step without steps"
expect 2 "$switchyard" bench step small.yaml "${replay[@]}" experts.router.replay=plain
expect_lines 1 "has made-up tokens, which no trace knows"
finish
