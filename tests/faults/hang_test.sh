#!/usr/bin/env bash
# A rank that is stopped in setup, in a step, in a checkpoint: named within the limit plus a tenth, all
# ranks end with 18, nothing stays. A slow rank is named and nothing ends.
#   hang_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
mpiexec=$1 switchyard=$2 ranks=$3
source "$(dirname "$0")/job.sh"
cd "$work" || exit 1
prepare_job
limit=3
last=$((ranks - 1))

expect_hang() {
  local rank=$1 where=$2
  finish_job 20
  expect_code 18
  expect_output 1 "^switchyard: hang: no progress for"
  expect_output 1 "^switchyard: rank $rank \($host\) has (not entered|entered but does not complete) .*$where"
  expect_output 1 "^switchyard:   its process $victim is stopped, by a signal or a debugger"
  expect_exit_file 18 "rank $rank"
  grep -q "rank $rank" "$job_name/watch/report.txt" || fail "no report"
  cat "$job_name"/logs/rank-*.log | grep -q "hang: no progress" || fail "nothing in the logs"
  # From the stop to the report; starting mpirun's end and the processes' own is not the watchdog's.
  local noticed
  noticed=$(($(date -r "$job_name/watch/report.txt" +%s%3N) - stopped))
  echo "$job_name: rank $rank of $ranks named $noticed ms after it was stopped (limit $limit s), all ended after $took ms"
  ((noticed <= limit * 1100)) || fail "$job_name: noticed after $noticed ms"
}

start setup
stop_in is_in_setup "$last" || fail "setup: not stopped: $(cat setup.out)"
stopped=$begun
expect_hang "$last" "in setup"

start step
stop_in is_stepping "$last" || fail "step: not stopped: $(cat step.out)"
stopped=$begun
expect_hang "$last" "step [0-9]+"

start first
stop_in is_stepping 0 || fail "first: not stopped: $(cat first.out)"
stopped=$begun
expect_hang 0 "step [0-9]+"

start save checkpoint.every=1
stop_in is_saving 1 || fail "save: not stopped: $(cat save.out)"
stopped=$begun
expect_hang 1 "checkpoint after step [0-9]+"
expect_checkpoints_valid

prepare_long --valid 0.5
start evaluation "${long_evaluation[@]}"
stop_in is_evaluating "$last" || fail "evaluation: not stopped: $(cat evaluation.out)"
stopped=$begun
expect_hang "$last" "evaluation after step 1"

# Slow: stopped and continued in turn, which doubles what its computation takes.
start slow watchdog.slow_every=20 train.num_steps=200
wait_for is_stepping || fail "slow: no steps: $(cat slow.out)"
victim=$(pid_of "$last")
while kill -0 "$job" 2>/dev/null; do
  kill -STOP "$victim" 2>/dev/null && sleep 0.03
  kill -CONT "$victim" 2>/dev/null && sleep 0.01
done
finish_job 20
expect_code 0
grep -qE "^rank $last \($host\) is slow: its computation takes [0-9.e-]+ s a step, the median" slow.out ||
  fail "the slow rank was not named: $(cat slow.out)"
grep -q "is slow" slow/logs/rank-0.log || fail "the log does not name the slow rank"
finish
