#!/usr/bin/env bash
# Draws a run from its metrics.jsonl: RUN/plots/{loss,speed,balance}.png.
#   launch/plot.sh RUN
set -euo pipefail
# Closed standard streams are held, so that no file that a program opens gets their numbers.
for stream in 0 1 2; do [[ -e /proc/self/fd/$stream ]] || eval "exec $stream</dev/null"; done
usage() { sed -n '2,3s/^# \{0,1\}//p' "$0"; }
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
PLOT
# A picture appears under its name when it is whole: gnuplot is silent about a full disk.
mkdir -p "$run/plots"
for picture in loss speed balance; do
  part=$run/plots/$picture.png.part
  cp "$work/$picture.png" "$part" || { rm -f "$part"; echo "plot.sh: cannot write $run/plots" >&2; exit 6; }
  mv "$part" "$run/plots/$picture.png"
done
printf '%s\n' "$run"/plots/{loss,speed,balance}.png
