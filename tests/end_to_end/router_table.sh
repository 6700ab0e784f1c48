#!/usr/bin/env bash
# A long test, by hand: trains the quickstart's model, smaller, with every kind of router for 300 steps; the
# table and the picture of docs/routers.md.
#   router_table.sh SWITCHYARD CORPUS FOLDER     writes FOLDER/table.md and FOLDER/routers.png
set -euo pipefail
[[ $# -eq 3 ]] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
switchyard=$1 corpus=$2 folder=$3
config=$(dirname "$0")/../../configs/tiny.yaml
mkdir -p "$folder"

# run NAME SETTING...
names=()
run() {
  local name=$1
  shift
  names+=("$name")
  "$switchyard" train "$config" data.path="$corpus" run.output="$folder/$name" parallel.expert=1 \
    model.hidden=64 model.num_layers=2 model.sequence_length=128 experts.intermediate=128 \
    train.num_steps=300 train.global_batch=8 evaluate.every=300 checkpoint.every=0 \
    experts.allow_future=true "$@" > "$folder/$name.log"
}
# value NAME KEY FIRST: the mean of a key over the steps from FIRST on.
value() {
  grep -v '"event"' "$folder/$1/metrics.jsonl" | awk -v key="$2" -v first="$3" '
    match($0, "\"step\": *[0-9]+") { step = substr($0, RSTART, RLENGTH); sub(/.*: */, "", step) }
    step >= first && match($0, "\"" key "\": *[0-9][-+.eE0-9]*") {
      value = substr($0, RSTART, RLENGTH); sub(/.*: */, "", value); sum += value; ++n }
    END { printf "%.3f", sum / n }'
}

run top_k
run top_k_bias experts.bias_rate=0.01 experts.balance_weight=0
run top_k_quantile experts.bias_rate=0.1 experts.bias_rule=quantile experts.balance_weight=0
run top_k_step experts.balance_scope=step
run top_k_capacity experts.capacity_factor=1.25
run top_k_sigmoid experts.router.score=sigmoid experts.router.scale=2.5
run top_k_groups experts.router.groups=2 experts.router.top_groups=1
run switch experts.top_k=1 experts.router.jitter=0.01
run noisy_top_k experts.router.kind=noisy_top_k
run noisy_importance experts.router.kind=noisy_top_k experts.balance_loss=importance_and_load experts.balance_weight=0.1
run gshard experts.router.kind=gshard
run sinkhorn experts.router.kind=sinkhorn
run base experts.router.kind=base experts.router.score=sigmoid experts.top_k=1
run expert_choice experts.router.kind=expert_choice experts.top_k=4 experts.router.capacity=2
run hash experts.router.kind=hash
run balanced experts.router.kind=balanced
run imbalanced experts.router.kind=imbalanced experts.router.imbalance=3

{
  echo "| router | validation loss | load max/mean while training, worst layer |"
  echo "| --- | --- | --- |"
  for name in "${names[@]}"; do
    echo "| \`$name\` | $(value "$name" validation_loss 300) | $(value "$name" load_max_over_mean 201) |"
  done
} | tee "$folder/table.md"

sed -nE 's/^\| `([a-z_]+)` \| ([0-9.]+) \| ([0-9.]+) \|/\1 \2 \3/p' "$folder/table.md" > "$folder/table"
gnuplot <<PLOT
set terminal pngcairo size 1000,560 font "sans,11"
set output "$folder/routers.png"
set title "300 steps with every router"
set xlabel "load of the fullest expert, times the mean (steps 201 to 300)"
set ylabel "validation loss (nats a token)"
set grid lc rgb "#dddddd"
set offsets graph 0.05, graph 0.15, graph 0.05, graph 0.05
plot "$folder/table" using 3:2 with points pt 7 lc rgb "#1f77b4" notitle, \
     "" using 3:2:(sprintf("%s", stringcolumn(1))) with labels left offset 1,0 noenhanced notitle
PLOT
