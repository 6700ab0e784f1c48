#!/usr/bin/env bash
# A router that sends every token to one rank, under a limit of memory (ulimit -d) that a run which holds all
# those rows at once breaks: with experts.max_rows it trains, to the same losses as without the limit.
#   max_rows_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"

write_config small.yaml <<'YAML'
train: {num_steps: 2, global_batch: 48, micro_batch: 24}
evaluate: {every: 0}
checkpoint: {every: 0}
YAML
prepare_corpus "$switchyard"
# 6144 tokens, all on the first rank: gate and up of 4 layers are 4 x 100 MB.
worst=(model.hidden=16 model.num_layers=4 model.sequence_length=128 experts.num_experts=4 experts.top_k=1 experts.intermediate=2048
  experts.router.kind=imbalanced experts.router.imbalance=4 parallel.expert=2)
bounded=(experts.max_rows=2048)
planned() { "$switchyard" plan small.yaml --ranks 2 --rows 6144 --json "${worst[@]}" "$@" | sed -nE 's/^  "memory_bytes": ([0-9]+).*/\1/p'; }
curve() { grep '"loss"' "$1/metrics.jsonl" | grep -oE '"(loss|grad_norm)": [0-9.e-]+'; }

with=$(planned "${bounded[@]}") without=$(planned)
((without > with + 250000000)) || fail "the plan: $with bytes with max_rows, $without without"
# Beside what the plan counts the program, MPI and the libraries have 160 MB of their own here.
limit=$(((with + 220000000) / 1024))
limited() { (ulimit -d "$limit" && exec "$@"); }

expect 0 on_ranks train small.yaml "${worst[@]}" run.output=free
limited "$mpiexec" -n 2 "$switchyard" train small.yaml "${worst[@]}" run.output=killed >"$work/out" 2>&1 &&
  fail "all rows at once fit into $limit KiB: the limit shows nothing"
expect 0 limited "$mpiexec" -n 2 "$switchyard" train small.yaml "${worst[@]}" "${bounded[@]}" run.output=bounded
[[ $(curve free | wc -l) -eq 4 ]] || fail "not two steps: $(curve free)"
diff <(curve free) <(curve bounded) > curve.diff || fail "other losses with max_rows: $(cat curve.diff)"
used=$(tail -n 1 bounded/metrics.jsonl | grep -oE '"memory_bytes": [0-9]+' | grep -oE '[0-9]+')
((used == with)) || fail "the plan says $with bytes, the run $used"
finish
