#!/usr/bin/env bash
# A study on a cluster of two nodes: arrays of jobs with a limit, branches behind their trunk, a
# controller that dies meanwhile, a job that collects.
#   study_test.sh SWITCHYARD
set -uo pipefail
source "$(dirname "$0")/cluster.sh"
begin_in_cluster "$1"
switchyard=$1
write_config base.yaml <<'YAML'
train: {num_steps: 5, global_batch: 4}
optimizer: {warmup_steps: 2}
YAML
cat >study.yaml <<'YAML'
study:
  name: batch
  output: study
  config: base.yaml
  slurm: {ranks_per_node: 1, time: "00:10:00", limit: 1}
sets:
  - name: ranks
    set: {train.num_steps: 3000}
    scaling: {kind: strong, ranks: [1, 2]}
  - name: size
    grid: {model.hidden: [16, 32]}
    set: {train.num_steps: 4}
  - name: trunk
    branches: {at: [4], decay: 0.5}
YAML
must() {
  local seconds=$1 what=$2
  shift 2
  wait_for "$seconds" "$@" || { fail "$what did not come: $(squeue 2>&1); $(tail -n 3 study/*.log study/points/*/*.log 2>&1); $(tail -n 5 "$cluster"/*.log)"; finish; }
}

expect 0 "$switchyard" sweep study.yaml --slurm
[[ $out == *"4 points of 1 ranks"*"1 point of 2 ranks"*"1 point of 1 ranks"*"collects when they have ended"*"6 points submitted"* ]] ||
  fail "submitted: $out $err"
array=$(sed -nE 's/^job ([0-9]+): 4 points.*/\1/p' <<<"$out")
[[ $(scontrol show job "$array" -o | head -n 1) == *"ArrayTaskThrottle=1"* ]] || fail "no limit: $(scontrol show job "$array")"
branch=$(sed -nE 's/^job ([0-9]+): 1 point of 1 ranks/\1/p' <<<"$out")
[[ $(scontrol show job "$branch" -o) == *"Dependency=afterok:"* ]] || fail "the branch does not wait: $(scontrol show job "$branch")"
# The same again is refused while they are queued.
expect 2 "$switchyard" sweep study.yaml --slurm
expect_lines 1 "jobs of the study batch are queued or run"

# The controller dies, once it has written down that the first point runs, and comes back: the jobs go on.
has_begun() { [[ -s $(echo study/points/ranks-*/metrics.jsonl | cut -d' ' -f1) ]]; }
must 90 "the first point" has_begun
touch begun
is_saved() { [[ $cluster/controller/job_state -nt begun ]]; }
must 60 "the state of the controller" is_saved
kill -KILL "${cluster_pids[slurmctld]}"
slurmctld -D >"$cluster/slurmctld-2.out" 2>&1 &
cluster_pids[slurmctld]=$!
disown

must 240 "the collected file" test -s study/study.h5
all_done() { "$switchyard" sweep study.yaml --collect 2>/dev/null | grep -q '^6 done$'; }
must 30 "the end of all points" all_done
is_empty() { squeue -h >"$work/queue" 2>/dev/null && [[ ! -s $work/queue ]]; }
must 60 "the end of all jobs" is_empty
grep -q '"num_ranks": 2' study/points/ranks-*/record.json || fail "no point ran on two ranks"
[[ $(cat study/points/ranks-*/record.json) == *'"hosts"'* ]] || fail "hosts are not recorded"
[[ $(ls study/collect-*.log) ]] && grep -q '6 done' study/collect-*.log || fail "the job that collects: $(cat study/collect-*.log)"
expect 0 "$switchyard" sweep study.yaml --slurm
[[ $out == *$'\n'"0 points submitted" ]] || fail "finished points were submitted again: $out"
finish
