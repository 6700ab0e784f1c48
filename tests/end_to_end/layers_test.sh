#!/usr/bin/env bash
# The rows of layers with experts in metrics.jsonl, and the map that plot.sh draws of them.
#   layers_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
plot=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../launch/plot.sh")
source "$(dirname "${BASH_SOURCE[0]}")/run.sh"

write_config small.yaml <<'YAML'
train: {num_steps: 6, global_batch: 12, micro_batch: 2}
metrics: {layers_every: 2}
profile: {steps: 4}
YAML
prepare_corpus "$switchyard"
rows() { grep '"event": "layer"' "$1/metrics.jsonl"; }
# field NAME: of the rows on stdin
field() { sed -nE "s/.*\"$1\": ([-+.e0-9]+).*/\1/p"; }
nodes=()
((ranks == 1)) || nodes=(experts.dispatch.kind=hierarchical experts.dispatch.ranks_per_node=1)

expect 0 on_ranks train small.yaml parallel.expert="$ranks" "${nodes[@]}" experts.capacity_factor=1
[[ $out == *"balance "*" layer "[01]* ]] || fail "the line of progress does not name a layer: $out"
[[ $(rows run | field step | tr '\n' ' ') == "2 2 4 4 6 6 " ]] || fail "steps: $(rows run)"
[[ $(rows run | field layer | tr '\n' ' ') == "0 1 0 1 0 1 " ]] || fail "layers: $(rows run)"
# Step 4 belongs to the time line of the profile.
[[ $(rows run | grep -c '"expert_seconds": .*"exchange_seconds": .*"wait_seconds": ') -eq 4 ]] || fail "seconds: $(rows run)"
rows run | field expert_seconds | awk '!($1 > 0) { exit 1 }' || fail "experts took no time: $(rows run)"
# Shares of 5 experts: an entropy between 0 and ln 5, near the end of that before anything is learnt.
rows run | field router_entropy | awk '!($1 > 1.2 && $1 <= 1.6095) { exit 1 } END { exit NR != 6 }' || fail "entropy: $(rows run)"
rows run | field dropped_fraction | awk '!($1 > 0 && $1 < 0.5) { exit 1 } END { exit NR != 6 }' || fail "drops: $(rows run)"
# Each rank is a node: all but the rows of a rank's own experts go to others.
rows run | field other_nodes_fraction |
  awk -v ranks="$ranks" '{ d = $1 - (ranks - 1) / ranks; if (d < -0.15 || d > 0.15 || (ranks == 1 && $1 != 0)) exit 1 } END { exit NR != 6 }' ||
  fail "rows to other nodes: $(rows run)"
# What the rows say of the load is what the step's line says, and what each expert has makes it.
paste -d' ' <(grep '"loss"' run/metrics.jsonl | sed -nE '/"step": (2|4|6),/s/.*"load_by_layer": \[([0-9.]+), ([0-9.]+)\].*/\1\n\2/p') \
  <(rows run | field load_max_over_mean) <(rows run | sed -nE 's/.*"load_percent": \[([^]]*)\].*/\1/p' | tr -d ,) |
  awk '{ sum = most = 0; for (i = 3; i <= NF; ++i) { sum += $i; if ($i > most) most = $i }
         d = most / 100 - $2; if ($1 != $2 || NF != 7 || sum < 497 || sum > 503 || d < -0.006 || d > 0.006) exit 1 }
       END { exit NR != 6 }' || fail "loads: $(rows run)"

expect 0 "$switchyard" report run --output page.html
grep -q 'id="expert-map-1"' page.html || fail "no map of the experts on the page"
if command -v gnuplot >/dev/null; then
  expect 0 "$plot" run
  [[ $out == *"run/plots/load.png"* && -z $err ]] || fail "plot: $out $err"
  [[ $(tail -c 8 run/plots/load.png | head -c 4) == IEND ]] || fail "load.png is not whole"
else
  echo "NOT TESTED: plot.sh (gnuplot is not installed)"
fi

# Without them nothing of it is there; a router without scores has no entropy.
expect 0 on_ranks train small.yaml parallel.expert="$ranks" run.output=none metrics.layers_every=0 train.num_steps=2
rows none && fail "rows that nobody asked for"
expect 0 on_ranks train small.yaml parallel.expert="$ranks" run.output=hash experts.router.kind=hash train.num_steps=2
[[ $(rows hash | wc -l) -eq 2 && $(rows hash) != *entropy* ]] || fail "hash: $(rows hash)"
finish
