#!/usr/bin/env bash
# How long a job takes from the death of a rank to its next step, phase by phase, on a cluster of two
# nodes on this machine: the quickstart's model with a rank on each, of which one is killed.
#   restart_time.sh SWITCHYARD SUBMIT [srun|mpirun] [KILL_WAIT] [TRIALS]
# KILL_WAIT: of slurm.conf, in seconds (5). Exit code 77: no cluster can be started here.
set -uo pipefail
switchyard=$1 submit=$2 launcher=${3:-srun} cluster_kill_wait=${4:-5} trials=${5:-3}
switchyard=$(realpath "$switchyard") submit=$(realpath "$submit")
source "$(dirname "$0")/cluster.sh"
config=$(realpath "$(dirname "$0")/../../configs/tiny.yaml")
begin_in_cluster "$switchyard"

now() { date +%s%3N; }
# after WHAT COMMAND...: waits for it and tells when, in ms since the kill.
after() {
  local what=$1
  shift
  wait_for 60 "$@" || { echo "never: $what"; cat run/slurm-*.log; exit 1; }
  printf '  %6d ms  %s\n' $(($(now) - killed)) "$what"
}
count() { grep -c -- "$1" "$2" 2>/dev/null || true; }
at_least() { (($(count "$1" "$2") + 0 >= $3)); }
# Ended, though its parent may not have taken note of it: the daemon of mpirun leaves that to the system.
gone() {
  local pid
  for pid in "$@"; do
    ! grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$pid/status" || return 1
  done
}
is_step_after_restart() { sed -n "/\"restarts\": $1,/,\$p" run/metrics.jsonl | grep -q '"loss"'; }

# More ranks a node do not work here: Open MPI takes nodes of one name for one host and mixes up the
# shared memory of their ranks.
expect 0 "$submit" "$config" --nodes 2 --ranks-per-node 1 --time 60 --launcher "$launcher" \
  run.output=run data.path=corpus.h5 train.num_steps=1000000 checkpoint.every=5 evaluate.every=0
job=$(submitted_job)
log=run/slurm-$job.log
wait_for 60 at_least '"loss"' run/metrics.jsonl 8 || { echo "no steps"; cat "$log"; exit 1; }
for ((trial = 1; trial <= trials; ++trial)); do
  mapfile -t ranks < <(processes_with "SLURM_JOB_ID=$job" | while read -r pid; do
    [[ $(ps -o comm= -p "$pid") != switchyard ]] || echo "$pid"
  done)
  echo "$launcher, KillWait $cluster_kill_wait s, restart $trial: ${#ranks[@]} ranks, one is killed"
  kill -KILL "${ranks[1]}"
  killed=$(now)
  after "the others are gone" gone "${ranks[@]}"
  grep -qs '"reason": "rank ' run/exit.json || echo "             (and could leave no exit.json)"
  after "the script queues the job again" at_least 'queued again' "$log" "$trial"
  after "Slurm has started it again" at_least '\] start' "$log" $((trial + 1))
  after "the first new step" is_step_after_restart "$trial"
  sleep 3  # a checkpoint on, or three restarts count as no progress
done
scancel "$job"
