#!/usr/bin/env bash
# A long test, by hand: trains the quickstart's model, smaller, with every kind of router for 300 steps; the
# table and the picture of docs/routers.md.
#   router_table.sh SWITCHYARD CORPUS FOLDER     writes FOLDER/table.md and FOLDER/routers.png
#   router_table.sh --draw TABLE PICTURE         draws a table again, such as that of docs/routers.md
set -euo pipefail
[[ $# -eq 3 ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }

# draw TABLE PICTURE: each name beside the points, as high as its loss or as far below the one before as letters
# need, and a line to its point.
draw() {
  local points
  points=$(mktemp)
  sed -nE 's/^\| `([a-z_]+)` \| ([0-9.]+) \| ([0-9.]+) \|.*/\1 \2 \3/p' "$1" | sort -k 2,2nr | awk '
    { name[NR] = $1; loss[NR] = $2; load[NR] = $3; if ($3 > most) most = $3 }
    END {
      apart = (loss[1] - loss[NR]) / (NR - 1)
      for (i = 1; i <= NR; ++i) {
        at = loss[i]
        if (i > 1 && at > before - apart) at = before - apart
        height[i] = before = at
      }
      lift = height[NR] < loss[NR] ? (loss[NR] - height[NR]) / 2 : 0
      for (i = 1; i <= NR; ++i)
        print name[i], loss[i], load[i], most + 0.25, height[i] + lift
    }' > "$points"
  [[ -s $points ]] || { echo "no rows of a table of routers in $1" >&2; exit 2; }
  gnuplot <<PLOT
set terminal pngcairo size 1000,560 font "sans,11"
set output "$2"
set title "300 steps with every router"
set xlabel "load of the fullest expert, times the mean (steps 201 to 300)"
set ylabel "validation loss (nats a token)"
set grid lc rgb "#dddddd"
set offsets graph 0.05, graph 0.2, graph 0.05, graph 0.05
plot "$points" using 3:2:(\$4-\$3):(\$5-\$2) with vectors nohead lc rgb "#bbbbbb" notitle, \
     "" using 3:2 with points pt 7 lc rgb "#1f77b4" notitle, \
     "" using 4:5:(stringcolumn(1)) with labels left offset 0.5,0 noenhanced notitle
PLOT
  rm "$points"
}
if [[ $1 == --draw ]]; then
  draw "$2" "$3"
  exit
fi
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

draw "$folder/table.md" "$folder/routers.png"
