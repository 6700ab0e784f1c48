#!/usr/bin/env bash
# Dispatch between hosts: every kind trains to the same bits, and `hierarchical` sends so many bytes less over
# the link between two hosts than `all_to_all` as the formula of docs/parallelism.md says.
#   dispatch_test.sh MPIRUN_SH SWITCHYARD
set -uo pipefail
mpirun_sh=$1
export SWITCHYARD=$2
source "$(dirname "$0")/../launch/expect.sh"
source "$(dirname "$0")/../support/small_run.sh"
source "$(dirname "$0")/namespaces.sh"
make_hosts 2
cd "$work" || exit 1

# Token n has the experts 4 n ... 4 n + 3 modulo 8: all four on the first host or all on the second, two on
# each rank there. No sums of gradients cross the link but the dense ones, alike for all kinds.
layers=2 hidden=256 length=128 sequences=4 steps=6
write_config small.yaml <<YAML
train: {num_steps: $steps, global_batch: $((4 * sequences)), micro_batch: $sequences}
evaluate: {every: 0}
checkpoint: {every: 0}
YAML
export OMP_NUM_THREADS=1
prepare_corpus "$SWITCHYARD"
model=(model.hidden=$hidden model.num_layers=$layers model.sequence_length=$length experts.num_experts=8 experts.top_k=4
  experts.router.kind=balanced parallel.expert=4)
sent() { ip netns exec "$prefix-h1" cat /sys/class/net/net0/statistics/tx_bytes; }
# train NAME [KEY=VALUE...]: four ranks on two hosts; sets $bytes to what left the first
train() {
  local before
  before=$(sent)
  expect 0 on_host h1 "$mpirun_sh" small.yaml -n 4 --hosts h1:2,h2:2 --device net0 "${model[@]}" run.output="$1" "${@:2}"
  bytes=$(($(sent) - before))
}
curve() { grep '"loss"' "$1/metrics.jsonl" | sed -E 's/, "num_tokens".*//'; }

train rows
rows_bytes=$bytes
[[ $(curve rows | wc -l) -eq $steps ]] || fail "not one line a step: $(curve rows)"
train nodes experts.dispatch.kind=hierarchical
nodes_bytes=$bytes
for other in gather chunks nodes_of_one; do
  case $other in
    gather) train gather experts.dispatch.kind=all_gather ;;
    chunks) train chunks experts.dispatch.chunks=2 ;;
    nodes_of_one) train nodes_of_one experts.dispatch.kind=hierarchical experts.dispatch.ranks_per_node=1 ;;
  esac
done
for other in nodes gather chunks nodes_of_one; do
  diff <(curve rows) <(curve $other) > curve.diff || fail "$other differs: $(head -n 4 curve.diff)"
done

# Half of the tokens of the two ranks of a host have their experts on the other. Each of them went there as four
# rows, and now goes once, with 8 bytes that say for whom and 4 for each row.
tokens=$((2 * sequences * length / 2))
saved=$((steps * layers * tokens * (3 * hidden * 4 - 8 - 4 * 4)))
echo "over the link: $rows_bytes bytes by all_to_all, $nodes_bytes by hierarchical; saved by the formula: $saved"
awk -v difference=$((rows_bytes - nodes_bytes)) -v saved=$saved 'BEGIN { exit !(difference > 0.97 * saved && difference < 1.03 * saved) }' ||
  fail "hierarchical saves $((rows_bytes - nodes_bytes)) bytes, and $saved by the formula"

# The same tokens as one sum of each node, and gradients likewise: 1 row for 4 on three ways more, and 4 bytes for each row
# there and back, for weights and their gradients. Losses to rounding.
train summed experts.dispatch.kind=hierarchical experts.dispatch.return=summed
summed_saved=$((steps * layers * tokens * (3 * 3 * hidden * 4 - 2 * 4 * 4)))
echo "with sums: $bytes bytes; saved by the formula: $summed_saved"
awk -v difference=$((nodes_bytes - bytes)) -v saved=$summed_saved 'BEGIN { exit !(difference > 0.97 * saved && difference < 1.03 * saved) }' ||
  fail "sums save $((nodes_bytes - bytes)) bytes, and $summed_saved by the formula"
losses() { grep -o '"loss": [0-9.]*' "$1/metrics.jsonl" | grep -o '[0-9.]*$'; }
paste <(losses rows) <(losses summed) | awk '{ d = ($1 - $2) / $1; if (d > 1e-5 || d < -1e-5) exit 1 }' || fail "sums give other losses"
finish
