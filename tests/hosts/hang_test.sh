#!/usr/bin/env bash
# A rank on another host is stopped, killed, or crashes: it is named with its host, all end, nothing is left.
# The hosts see one another's ranks by the run's folder alone.
#   hang_test.sh MPIRUN_SH SWITCHYARD
set -uo pipefail
mpirun_sh=$1
export SWITCHYARD=$2
source "$(dirname "$0")/../launch/expect.sh"
source "$(dirname "$0")/../support/small_run.sh"
source "$(dirname "$0")/namespaces.sh"
make_hosts 3
cd "$work" || exit 1

write_config small.yaml <<'YAML'
parallel: {expert: 4}
train: {num_steps: 1000000, global_batch: 12, micro_batch: 3}
watchdog: {setup: 10, step: 4, checkpoint: 10}
YAML
export OMP_NUM_THREADS=1
prepare_corpus "$SWITCHYARD"

# start NAME: four ranks, two on h1, one on h2 and one (rank 3) on h3.
start() {
  name=$1
  on_host h1 "$mpirun_sh" small.yaml -n 4 --hosts h1:2,h2:1,h3:1 --device net0 run.output="$name" \
    > "$name.out" 2>&1 &
  job=$!
  until [[ $(grep -cs '"loss"' "$name/metrics.jsonl") -ge 3 ]]; do
    kill -0 $job 2>/dev/null || { fail "$name did not start: $(cat "$name.out")"; return 1; }
    sleep 0.05
  done
}
# The process of a rank of the job under way.
process_of() {
  local pid
  for pid in $(pgrep -x switchyard); do
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$1" &&
      tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q "run.output=$name" && echo "$pid" && return
  done
  return 1
}
# ends CODE SECONDS: within that time, with nothing left.
ends() {
  local begun=$EPOCHSECONDS code=0
  wait $job || code=$?
  local took=$((EPOCHSECONDS - begun))
  [[ $code -eq $1 ]] || fail "$name ended with $code, not $1: $(cat "$name.out")"
  ((took <= $2)) || fail "$name took $took s to end, more than $2"
  echo "$name: ended with $code after $took s"
  sleep 0.5  # the system's own end of large processes
  for rank in 0 1 2 3; do ! process_of $rank || fail "$name: rank $rank is left"; done
}

start stopped && victim=$(process_of 3) && kill -STOP "$victim"
ends 18 15
grep -qE "^switchyard: rank 3 \(h3\) has (not entered|entered but does not complete) " stopped.out ||
  fail "the stopped rank of h3 is not named: $(cat stopped.out)"
[[ $(grep -c "^switchyard: hang: no progress" stopped.out) -eq 1 ]] || fail "not one report: $(cat stopped.out)"
grep -q '"code": 18' stopped/exit.json || fail "exit.json: $(cat stopped/exit.json)"
grep -q "rank 3 (h3)" stopped/watch/report.txt || fail "report: $(cat stopped/watch/report.txt)"

# A survivor crashes at once, as Open MPI may make it: the death is told and not the crash.
start killed && victim=$(process_of 2) && survivor=$(process_of 0) && kill -KILL "$victim" && kill -SEGV "$survivor"
ends 137 5
grep -q '"reason": "rank 2 (h2) ' killed/exit.json ||
  fail "the killed rank of h2 is not named: $(cat killed.out killed/exit.json)"
! grep -q SIGSEGV killed.out || fail "the survivor's crash is told as a cause: $(cat killed.out)"

# A rank of another host that crashes by itself says so.
start crashed && victim=$(process_of 3) && kill -ABRT "$victim"
ends 134 5
grep -q '"reason": "rank 3 (h3) crashed' crashed/exit.json ||
  fail "the crashed rank of h3 is not named: $(cat crashed.out crashed/exit.json)"
[[ $(grep -c "^switchyard: rank " crashed.out) -eq 1 ]] || fail "not one cause: $(cat crashed.out)"
finish
