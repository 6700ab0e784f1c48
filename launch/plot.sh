#!/usr/bin/env bash
# Draws a run from its metrics.jsonl: RUN/plots/{loss,speed,balance}.png, and load.png, a map of the
# experts of all layers, where the run has rows of layers (metrics.layers_every).
#   launch/plot.sh RUN
set -euo pipefail
# Closed standard streams are held, so that no file that a program opens gets their numbers.
for stream in 0 1 2; do [[ -e /proc/self/fd/$stream ]] || eval "exec $stream</dev/null"; done
usage() { sed -n '2,4s/^# \{0,1\}//p' "$0"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac
[[ $# -eq 1 && -n $1 ]] || { usage >&2; exit 2; }
run=$1
metrics=$run/metrics.jsonl
[[ -s $metrics ]] || { echo "plot.sh: $metrics is missing or empty; is $run a run's folder?" >&2; exit 3; }
command -v gnuplot >/dev/null || { echo "plot.sh: gnuplot is missing (Debian: gnuplot-nox)" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# columns FILE KEY...: the lines that have all keys, as a table.
columns() {
  local table=$1
  shift
  awk -v keys="$*" '
    BEGIN { n = split(keys, key, " ") }
    {
      line = ""
      for (i = 1; i <= n; ++i) {
        if (!match($0, "\"" key[i] "\": *-?[0-9][-+.eE0-9]*")) next
        value = substr($0, RSTART, RLENGTH)
        sub(/^[^:]*: */, "", value)
        line = line value " "
      }
      print line
    }' "$metrics" > "$work/$table"
}
columns train step cross_entropy tokens_per_second load_max_over_mean grad_norm
columns valid step validation_loss

# The load of every expert in the last step that has rows of layers: "layer expert load", and a line
# that names the step.
awk '
  /"event": "layer"/ {
    match($0, /"step": [0-9]+/); step = substr($0, RSTART + 8, RLENGTH - 8)
    match($0, /"layer": [0-9]+/); layer = substr($0, RSTART + 9, RLENGTH - 9)
    if (!match($0, /"load_percent": \[[^\]]*\]/)) next
    values = substr($0, RSTART + 17, RLENGTH - 18)
    if (step != last) { last = step; rows = "" }
    n = split(values, load, ", ")
    for (e = 1; e <= n; ++e) rows = rows layer " " e - 1 " " load[e] / 100 "\n"
  }
  END { if (last != "") printf "# step %d\n%s", last, rows }' "$metrics" > "$work/load"
pictures=(loss speed balance)
[[ ! -s $work/load ]] || pictures+=(load)
load_step=$(sed -n '1s/^# step //p' "$work/load")

# Of a run of one step gnuplot says that its axes are short.
gnuplot 2>"$work/words" <<PLOT || { cat "$work/words" >&2; exit 1; }
set terminal pngcairo size 1000,560 font "sans,11"
set grid lc rgb "#dddddd"
set xlabel "step"
set key top right
set style line 1 lc rgb "#1f77b4" lw 1.5
set style line 2 lc rgb "#d62728" lw 2 pt 7 ps 0.9
set style line 3 lc rgb "#999999" dt 2
set output "$work/loss.png"
set title "Loss"
set ylabel "cross-entropy (nats a token)"
valid = system("wc -l < $work/valid") + 0
if (valid > 0) {
  plot "$work/train" using 1:2 with lines ls 1 title "training", \
       "$work/valid" using 1:2 with linespoints ls 2 title "validation"
} else {
  plot "$work/train" using 1:2 with lines ls 1 title "training"
}
set output "$work/speed.png"
set title "Speed"
set ylabel "tokens a second, all ranks"
set yrange [0:*]
plot "$work/train" using 1:3 with lines ls 1 notitle
set output "$work/balance.png"
set title "Expert load, worst layer"
set ylabel "fullest expert over the mean (1 = balanced)"
set yrange [0:*]
plot "$work/train" using 1:4 with lines ls 1 title "load", 1 ls 3 title "perfect balance"
if ("$load_step" ne "") {
  unset grid
  set output "$work/load.png"
  set title "Load of the experts in step $load_step, by the mean of their layer"
  set xlabel "expert"
  set ylabel "layer"
  set yrange [*:*] reverse
  set autoscale xfix
  set autoscale yfix
  stats "$work/load" using 2 nooutput
  every = STATS_max < 24 ? 1 : ceil(STATS_max / 16.0)
  set xtics out nomirror every
  stats "$work/load" using 1 nooutput
  every = STATS_max < 16 ? 1 : ceil(STATS_max / 12.0)
  set ytics out nomirror every
  # White is balance; what is idle is dark blue, from twice the mean on it is dark red.
  set cbrange [0:2]
  set cblabel "rows by mean"
  set palette defined (0 "#08306b", 0.5 "#6baed6", 1 "#ffffff", 1.5 "#fb6a4a", 2 "#67000d")
  plot "$work/load" using 2:1:3 with image pixels notitle
}
PLOT
# A picture appears under its name when it is whole: gnuplot is silent about a full disk.
mkdir -p "$run/plots"
for picture in "${pictures[@]}"; do
  part=$run/plots/$picture.png.part
  cp "$work/$picture.png" "$part" || { rm -f "$part"; echo "plot.sh: cannot write $run/plots" >&2; exit 6; }
  mv "$part" "$run/plots/$picture.png"
done
for picture in "${pictures[@]}"; do echo "$run/plots/$picture.png"; done
