#!/usr/bin/env bash
# A rank that is killed or crashes, in setup, in a step, in a checkpoint: the job ends within 5 s, the
# cause stands there once, exit.json tells it, checkpoints are valid, nothing stays, and the same
# command goes on.
#   death_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
mpiexec=$1 switchyard=$2 ranks=$3
source "$(dirname "$0")/job.sh"
cd "$work" || exit 1
prepare_job
last=$((ranks - 1))
limit=60  # the watchdog's limits play no part here

kill_in() {  # SECTION RANK [SIGNAL]
  local section=$1 rank=$2
  wait_for "$section" "$rank" || fail "$job_name: never in $section: $(cat "$job_name.out")"
  victim=$(pid_of "$rank") || fail "$job_name: no rank $rank"
  kill "-${3:-KILL}" "$victim"
  begun=$(now)
}

expect_death() {
  local rank=$1
  finish_job 20
  echo "$job_name: rank $rank of $ranks killed; the job ended after $took ms with code $code"
  ((took < 5000)) || fail "$job_name took $took ms to end"
  expect_code 137
  expect_output 1 "^switchyard: rank $rank \($host\) died without a word \(process $victim\)"
  expect_output 1 "^switchyard: "
  expect_exit_file 20 "rank $rank \\($host\\) died"
  expect_checkpoints_valid
}

# A rank that crashes tells it, with its stack, before it dies of it; the others add nothing.
expect_crash() {  # RANK CODE WORDS
  local rank=$1
  finish_job 20
  echo "$job_name: rank $rank of $ranks crashed; the job ended after $took ms with code $code"
  ((took < 5000)) || fail "$job_name took $took ms to end"
  expect_code "$2"
  expect_output 1 "^switchyard: rank $rank \($host\) crashed \(process $victim\) .*: $3, sent by process $$"
  expect_output 1 "^switchyard: stack of rank $rank:"
  expect_output 1 "^switchyard:   #0 "
  expect_output 1 "^switchyard: rank "
  expect_exit_file 20 "rank $rank \\($host\\) crashed"
  expect_checkpoints_valid
}

start setup
kill_in is_in_setup "$last"
expect_death "$last"

start step checkpoint.every=2
kill_in is_stepping "$last"
expect_death "$last"
newest=$(find step/checkpoints -maxdepth 1 -name 'step-*[0-9]' | sort | tail -n 1)
start step train.num_steps=$((10#${newest##*step-} + 2))
finish_job 60
expect_code 0
expect_output 1 "resuming from step $((10#${newest##*step-}))"

start first
kill_in is_stepping 0
expect_death 0

start save checkpoint.every=1
kill_in is_saving 1
expect_death 1

start crash checkpoint.every=2
if ((ranks == 2)); then
  kill_in is_stepping "$last" SEGV
  expect_crash "$last" 139 "segmentation fault \(SIGSEGV\)"
else
  kill_in is_stepping 0 ABRT
  expect_crash 0 134 "abort \(SIGABRT\)"
fi

prepare_long --valid 0.5
start evaluation "${long_evaluation[@]}"
kill_in is_evaluating "$last"
expect_death "$last"

# mpirun itself: its ranks do not outlive it.
start launcher
wait_for is_stepping || fail "launcher: no steps"
pids=$(pgrep -P "$job")
kill -KILL "$job"
begun=$(now)
wait "$job" 2>/dev/null
while left=$(for pid in $pids; do [[ -d /proc/$pid ]] && echo "$pid"; done) && [[ -n $left ]] && (($(now) < begun + 10000)); do sleep 0.05; done
took=$(($(now) - begun))
echo "launcher: mpirun killed; its ranks were gone after $took ms"
[[ -z $left ]] || { fail "ranks outlive mpirun: $left"; kill -KILL $left; }
((took < 5000)) || fail "the ranks took $took ms to end after mpirun"
finish
