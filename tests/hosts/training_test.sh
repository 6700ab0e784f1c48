#!/usr/bin/env bash
# The same training on one, two and three hosts gives the same bits, also when it is stopped on three
# hosts and goes on on two. Through launch/mpirun.sh, over TCP between the hosts.
#   training_test.sh MPIRUN_SH SWITCHYARD
set -uo pipefail
mpirun_sh=$1
export SWITCHYARD=$2
source "$(dirname "$0")/../launch/expect.sh"
source "$(dirname "$0")/../support/small_run.sh"
source "$(dirname "$0")/namespaces.sh"
make_hosts 3
cd "$work" || exit 1

write_config small.yaml <<'YAML'
train: {num_steps: 12, global_batch: 12, micro_batch: 3}
optimizer: {learning_rate: 0.003, warmup_steps: 4}
checkpoint: {every: 0, keep: 2}
YAML
export OMP_NUM_THREADS=1
prepare_corpus "$SWITCHYARD"
# train HOSTS [KEY=VALUE...]: four ranks, started on the first host
train() {
  on_host h1 "$mpirun_sh" small.yaml -n 4 --hosts "$1" --device net0 "${@:2}"
}
curve() { grep '"loss"' "$1/metrics.jsonl" | sed -E 's/, "num_tokens".*//'; }
same() {  # same FOLDER OTHER: bitwise
  diff <(curve "$1") <(curve "$2") > curve.diff || fail "$2 differs from $1: $(head -n 4 curve.diff)"
}

for expert in 4 2; do
  for hosts in h1:4 h1:2,h2:2 h1:2,h2:1,h3:1; do
    count=$(tr -cd , <<<"$hosts" | wc -c)
    expect 0 train "$hosts" run.output="e$expert-$((count + 1))" parallel.expert=$expert
  done
  [[ $(curve e$expert-1 | wc -l) -eq 12 ]] || fail "not one line a step: $(curve e$expert-1)"
  same e$expert-1 e$expert-2
  same e$expert-1 e$expert-3
  expect 0 "$SWITCHYARD" checkpoint diff e$expert-1/checkpoints/step-00000012 e$expert-3/checkpoints/step-00000012
done

# Hosts that do not share the run's folder are told so before anything is written there.
mkdir own
echo "$work/own" > local
expect 6 train h1:2,h2:1,h3:1 run.output="$work/own/run"
expect_lines 1 "run.output: $work/own/run of host h1 is another folder on h2, h3: name one that all hosts share"
grep -q '"code": 6' own/run/exit.json || fail "exit.json: $(cat own/run/exit.json)"
: > local

# USR1 to mpirun reaches the ranks of all hosts; they agree, save and end with 16. Two hosts go on.
long=(parallel.expert=4 train.num_steps=40)
expect 0 train h1:4 run.output=whole "${long[@]}"
train h1:2,h2:1,h3:1 run.output=stopped "${long[@]}" > stopped.out 2>&1 &
job=$!
until [[ -s stopped/metrics.jsonl ]] || ! kill -0 $job 2>/dev/null; do :; done
pkill -USR1 -P $job || fail "nobody to signal"
wait $job
code=$?
[[ $code -eq 16 ]] || fail "a stopped job ended with $code: $(cat stopped.out)"
expect 0 train h1:2,h2:2 run.output=stopped "${long[@]}"
[[ $out == *"resuming from step"* ]] || fail "did not resume: $out"
same whole stopped
finish
