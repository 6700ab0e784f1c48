#!/usr/bin/env bash
# From a fresh Debian 12 machine to generated text: installs what is missing, builds, takes the
# fortunes of Debian's package, prepares them, trains a small mixture-of-experts model on 2 ranks
# with the experts sharded over them, evaluates, and prints three samples. A second call continues.
#   launch/quickstart.sh [--steps N]      N: steps of this call (default 400, about two minutes)
set -euo pipefail
# Closed standard streams are held, so that no file that a program opens gets their numbers.
for stream in 0 1 2; do [[ -e /proc/self/fd/$stream ]] || eval "exec $stream</dev/null"; done
script=$(realpath "$0")
cd "$(dirname "$0")/.."

steps=400
if [[ ${1:-} == --steps ]]; then
  [[ ${2:-} =~ ^[1-9][0-9]{0,8}$ ]] || { echo "quickstart: --steps takes a number, not '${2:-}'" >&2; exit 2; }
  steps=$2
  shift 2
fi
if [[ $# -gt 0 ]]; then
  sed -n '2,5s/^# \{0,1\}//p' "$script"
  [[ $1 != -h && $1 != --help ]] || exit 0
  echo "quickstart: unknown argument '$1'" >&2
  exit 2
fi

launch/install_packages.sh
launch/build.sh release switchyard
switchyard=build/release/switchyard
corpus=runs/corpora/fortunes.h5
run=runs/quickstart

if [[ ! -f $corpus ]]; then
  mkdir -p "$(dirname "$corpus")"
  # Beside the texts lie their indices (.dat): the summary counts what is left out, the file has the names.
  names=${corpus%.h5}.log
  "$switchyard" prepare /usr/share/games/fortunes --output "$corpus" --train-tokenizer 2048 2>"$names" ||
    { code=$?; cat "$names" >&2; exit "$code"; }
  echo "  names of what is left out: $names"
fi

# An interrupted call is finished first; a finished one is continued by as many steps again.
target=$steps
if [[ -f $run/quickstart_target ]]; then
  target=$(<"$run/quickstart_target")
  done_steps=$({ find "$run/checkpoints" -maxdepth 1 -name 'step-????????' 2>/dev/null || true; } |
    sed 's/.*step-0*//' | sort -n | tail -n 1)
  if [[ ${done_steps:-0} -ge $target ]]; then
    target=$((target + steps))
  fi
fi
mkdir -p "$run"
echo "$target" > "$run/quickstart_target"

launch/mpirun.sh configs/tiny.yaml -n 2 run.output="$run" data.path="$corpus" train.num_steps="$target"
COMMAND=eval launch/mpirun.sh configs/tiny.yaml -n 2 run.output="$run" data.path="$corpus" train.num_steps="$target"

echo
echo "Three samples of 60 tokens:"
for prompt in "The best way to" "A friend of mine" "Never"; do
  echo
  "$switchyard" generate "$run" --prompt "$prompt" --tokens 60 --temperature 0.8 --seed 1
done
echo
echo "Pictures:"
launch/plot.sh "$run" | sed 's/^/  /'
echo "Metrics:     $run/metrics.jsonl"
echo "Logs:        $run/logs/"
echo "Checkpoints: $run/checkpoints/"
echo "Run launch/quickstart.sh again to train $steps steps more."
