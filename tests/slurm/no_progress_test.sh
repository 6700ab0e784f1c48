#!/usr/bin/env bash
# A run that is killed before each checkpoint is started three times again and then no more, and its
# folder tells the story. No batch system takes part.
#   no_progress_test.sh SWITCHYARD
set -uo pipefail
switchyard=$1
source "$(dirname "$0")/../launch/expect.sh"
source "$(dirname "$0")/../support/small_run.sh"
cd "$work" || exit 1
write_config small.yaml <<'YAML'
train: {num_steps: 1000000, global_batch: 4}
checkpoint: {every: 1000000}
YAML
prepare_corpus "$switchyard"
lines() { grep -cs -- "$1" run/metrics.jsonl || true; }
# start_and_kill RESTARTS: kills a run that has said which restart it is and has taken three steps.
start_and_kill() {
  "$switchyard" train small.yaml > log 2>&1 &
  local job=$!
  until [[ $(lines event) -eq $1 && $(lines '"loss"') -ge 3 ]] || ! kill -0 $job 2>/dev/null; do :; done
  kill -KILL $job || fail "the run ended by itself: $(cat log)"
  wait $job 2>/dev/null
  [[ ! -e run/exit.json ]] || fail "exit.json of a killed run"
}
for restart in 0 1 2 3; do start_and_kill $restart; done
grep -q '{"event": "restart", "restarts": 3, "step": 0, "lost_steps": [1-9][0-9]*, "lost_seconds": [0-9.]*, "reason": "killed without a word' run/metrics.jsonl ||
  fail "metrics.jsonl: $(grep event run/metrics.jsonl)"
grep -q "restart 3 of this run, from step 0; " log || fail "the log: $(cat log)"

expect 19 "$switchyard" train small.yaml
expect_lines 1 "no progress: 3 restarts in a row, and no checkpoint after step 0"
grep -q '"code": *19' run/exit.json || fail "exit.json: $(cat run/exit.json)"

# Whoever starts it now has read that; and after a checkpoint it may be killed again as often.
expect 0 "$switchyard" train small.yaml train.num_steps=5
[[ $out == *"done after step 5 of 5"* ]] || fail "no summary: $out"
[[ $(lines event) -eq 4 && $(lines '"loss"') -eq 5 ]] || fail "metrics.jsonl: $(cat run/metrics.jsonl)"
expect 0 "$switchyard" train small.yaml train.num_steps=6
[[ $(lines event) -eq 4 ]] || fail "a continuation is no restart"
expect 2 "$switchyard" train small.yaml train.num_steps=2 checkpoint.resume=never
rm -r run/checkpoints/*
expect 0 "$switchyard" train small.yaml train.num_steps=2 checkpoint.resume=never
[[ $(lines event) -eq 0 && $(lines '"loss"') -eq 2 ]] || fail "not begun anew: $(cat run/metrics.jsonl)"
finish
