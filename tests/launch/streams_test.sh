#!/usr/bin/env bash
# Every command with each of its standard streams closed, and with its outputs full: what it leaves in
# its folder must be what it leaves with open ones, byte for byte or by `checkpoint diff`, and the exit
# code is as documented: 6 where the output is the result and finds no room, else 0.
#   streams_test.sh SWITCHYARD
# A command that has no row in the table below fails the test.
set -uo pipefail
switchyard=$(realpath "$1")
launch=$(realpath "$(dirname "$0")/../../launch")
data=$(realpath "$(dirname "$0")/data")
golden=$(realpath "$(dirname "$0")/../golden/families/mixtral")
source "$(dirname "$0")/expect.sh"
source "$(dirname "$0")/../support/small_run.sh"
cd "$work" || exit 1
export SWITCHYARD=$switchyard OMP_NUM_THREADS=1

# What every case finds: texts, tokens, a run. The texts have what is left out behind megabytes of
# text, so that messages come when parts of the token file are on the disk already.
mkdir start && cd start || exit 1
prepare_corpus "$switchyard"
write_config small.yaml <<'YAML'
train: {num_steps: 3, global_batch: 4, micro_batch: 2}
evaluate: {every: 2, num_sequences: 4}
checkpoint: {every: 2, keep: 2}
capture: {steps: [2], layers: [0], tensors: [hidden]}
trace: {routing: true, steps: 1..2}
YAML
expect 0 "$switchyard" train small.yaml
dense=(experts.num_experts=0 model.dense_intermediate=32 trace.routing=false trace.steps=none)
expect 0 "$switchyard" train small.yaml run.output=dense "${dense[@]}" train.num_steps=1
echo 'study: {name: small, output: runs/small, config: small.yaml, seeds: [1, 2]}
sets: [{name: experts, grid: {experts.num_experts: [2]}}]' >study.yaml
cp "$data/chinchilla_points.csv" points.csv
mkdir texts
for ((part = 0; part < 8; ++part)); do
  yes "A line of part $part, one of very many that are alike." | head -c 1100000
  printf '\n%%\n \n%%\n'
done > texts/long.txt
printf '{"text": "The 4 tokens"}\n' > rows.jsonl
cd ..

# COMMAND | prints: what it prints is its result; leaves: what it leaves in its folder is | the words
table='
prepare    | prints | prepare texts --output tokens.h5
train      | leaves | train small.yaml run.output=new
eval       | prints | eval small.yaml
generate   | prints | generate run --prompt The --tokens 4
score      | prints | score run rows.jsonl
plan       | prints | plan small.yaml
config     | prints | config small.yaml
checkpoint | prints | checkpoint verify run
upcycle    | prints | upcycle dense small.yaml --output new
sweep      | prints | sweep study.yaml
fit        | prints | fit points.csv --law tokens --bootstrap 4
import     | prints | import '"$golden"' --output new
export     | prints | export run --output published --dtype f32
trace      | prints | trace show run --coactivation pairs.csv --load load.csv
report     | prints | report run --output page.html
doctor     | prints | doctor
bench      | prints | bench linear --sizes 8x8x8 --warmup 1 --steps 1
help       | prints | --help
version    | prints | --version
'
for command in $("$switchyard" --help | sed -nE '/^Commands:/,/^$/s/^  ([a-z]+)  .*/\1/p'); do
  grep -qE "^$command +\|" <<<"$table" || fail "the command $command has no row in the table of this test"
done

# What a folder holds, one line a file. Figures change from run to run, and the order of a log's lines
# where threads write them; foreign words do not belong. A run records the folder it was started in.
contents() {
  local file
  (cd "$1" && find . -type f | sort) | while IFS= read -r file; do
    case $file in
      */checkpoints/* | */step-*/* | */captures/* | */routing/* | */watch/*) echo "$file" ;;  # with times in them; `same_run` looks
      *.h5 | *.bin | *.yaml | *.txt) echo "$file $(sha256sum <"$1/$file")" ;;
      *) echo "$file $(sed -E 's/[0-9a-f]{8,}|[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?/N/g; s#("directory": "[^"]*/)(whole|broken)"#\1"#' "$1/$file" | sort | sha256sum)" ;;
    esac
  done
}
# same_run: the checkpoints are whole, and the last equals that of the run with open streams.
same_run() {
  "$switchyard" checkpoint verify broken/new >/dev/null && "$switchyard" checkpoint diff broken/new whole/new >/dev/null
}

# case_of LABEL KIND COMMAND...: the command in copies of `start`, with streams in all states.
case_of() {
  local label=$1 kind=$2 code wanted lost shape
  shift 2
  cp -r start whole
  (cd whole && exec "$@" </dev/null >../out 2>../err) || fail "$label with open streams: $(cat err)"
  contents whole > wanted_contents
  for lost in in err 'err full' out 'out full' 'in out err'; do
    rm -rf broken
    cp -r start broken
    code=0
    case $lost in
      in) (cd broken && exec "$@" 0<&- >../out 2>../err) ;;
      err) (cd broken && exec "$@" </dev/null >../out 2>&-) ;;
      'err full') (cd broken && exec "$@" </dev/null >../out 2>/dev/full) ;;
      out) (cd broken && exec "$@" </dev/null 2>../err >&-) ;;
      'out full') (cd broken && exec "$@" </dev/null 2>../err >/dev/full) ;;
      'in out err') (cd broken && exec "$@" <&- >&- 2>&-) ;;
    esac || code=$?
    wanted=0
    [[ $kind == leaves || $lost != *out* ]] || wanted=6
    [[ $kind == any || $code -eq $wanted ]] || fail "$label, lost $lost: exit code $code, not $wanted"
    contents broken | diff wanted_contents - >differences || fail "$label, lost $lost: $(cat differences)"
    [[ ! -d broken/new ]] || same_run || fail "$label, lost $lost: another checkpoint"
  done
  rm -rf whole broken
}

while IFS='|' read -r command kind words; do
  [[ -n $command ]] || continue
  read -ra words <<<"$words"
  case_of "${command// /}" "${kind// /}" "$switchyard" "${words[@]}"
done <<<"$table"

# Ranks under mpirun, and the scripts that start other programs. What mpirun makes of a lost output of its
# own is its affair.
case_of mpirun.sh any "$launch/mpirun.sh" small.yaml -n 2 run.output=new
case_of plot.sh any "$launch/plot.sh" run
case_of submit any bash -c "'$launch/submit' --help || true"
finish
