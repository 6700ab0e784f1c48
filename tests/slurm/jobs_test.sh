#!/usr/bin/env bash
# Batch jobs on a real Slurm cluster of two nodes, under srun and under mpirun at the same time: the
# signal of the time limit, the death of either node, an array, a hang, a run that never gets anywhere,
# preemption, a cancelled job. The losses of the broken runs equal those of an unbroken one, bit for bit.
#   jobs_test.sh SWITCHYARD SUBMIT       exit code 77: no cluster can be started here (the reason is told)
set -uo pipefail
switchyard=$1 submit=$2
source "$(dirname "$0")/cluster.sh"

# write_job RUN STEPS: a schedule that does not depend on the number of steps, which the test moves.
write_job() {
  cat > "$1.yaml" <<YAML
run: {output: $1, precision: fp32}
data: {path: corpus.h5}
model: {hidden: 64, num_layers: 2, num_heads: 4, num_kv_heads: 2, sequence_length: 64}
experts: {num_experts: 5, top_k: 2, intermediate: 64}
parallel: {expert: 2}
train: {num_steps: $2, global_batch: 24, micro_batch: 3}
optimizer: {learning_rate: 0.003, warmup_steps: 4, min_learning_rate: 0.003}
checkpoint: {every: 20, keep: 2}
YAML
}
steps_of() { grep -c '"loss"' "$1/metrics.jsonl" 2>/dev/null || true; }
has_steps() {
  local count
  count=$(steps_of "$1")
  ((${count:-0} >= $2))
}
last_step() { sed -nE 's/^\{"step": ([0-9]+), "loss".*/\1/p' "$1/metrics.jsonl" | tail -n 1; }
losses() { sed -nE 's/^(\{"step": [0-9]+, "loss": [^,]+, .*"grad_norm": [^,]+),.*/\1/p' "$1/metrics.jsonl"; }
state_of() { squeue -h -j "$1" -o '%T' 2>/dev/null; }
is_gone() { [[ -z $(state_of "$1") || $(state_of "$1") == COMPLETED ]]; }
# A job's name is that of its run; `log` and `id` of each.
declare -A id log
submit_job() {  # RUN OPTIONS...
  local run=$1
  shift
  expect 0 "$submit" "$run.yaml" --nodes 2 --ranks-per-node 1 "$@"
  id[$run]=$(submitted_job)
  log[$run]=$run/slurm-${id[$run]}.log
  [[ -n ${id[$run]} && $out == *"${log[$run]}"* ]] || fail "submit did not tell the job and its log: $out"
}
story() { for run in by_srun by_mpirun; do echo "--- ${log[$run]:-}"; cat "${log[$run]:-/dev/null}"; done; }
must() {  # SECONDS WHAT COMMAND...
  local seconds=$1 what=$2
  shift 2
  wait_for "$seconds" "$@" && return
  echo "FAILED: $what within $seconds s"
  story
  squeue; sinfo -N; tail -n 20 "$cluster"/*.log
  exit 1
}
told() { echo "  $SECONDS s: $*"; }

begin_in_cluster "$switchyard"
told "the cluster is up"

# ---- Without PMIx each task would be a world of its own: refused before there is a folder ---------
write_job alone 10
expect 2 srun --mpi=none -N 2 -n 2 "$switchyard" train alone.yaml
expect_lines 1 "srun started 2 ranks, but MPI knows of one only"
[[ ! -e alone ]] || fail "tasks that would train alone left a folder: $(ls alone)"

# ---- Refusals, before anything is submitted ------------------------------------------------------
write_job refused 10
expect 2 "$submit" refused.yaml --nodes 3
expect_lines 1 "--nodes 3: the partition has 2"
expect 2 "$submit" refused.yaml --nodes 2 --ranks-per-node 3
expect_lines 1 "3 ranks of 1 cores need 3 cores, and a node has 2"
expect 2 "$submit" refused.yaml --nodes 2 --ranks-per-node 1 train.num_step=3
expect_lines 1 "did you mean train.num_steps?"
expect 2 "$submit" refused.yaml --nodes 2 --ranks-per-node 1 parallel.expert=3
expect_lines 1 "nothing was submitted"
expect 2 "$submit" refused.yaml --nodes 1 --ranks-per-node 2 model.hidden=8192 experts.intermediate=8192
expect_lines 1 "and a node has 1500 MiB"
mkdir -p "an earlier [run]/checkpoints/step-00000010"
expect 2 "$submit" refused.yaml --nodes 2 --ranks-per-node 1 checkpoint.resume=never "run.output=an earlier [run]"
expect_lines 1 "checkpoint.resume: never would begin a new course in an earlier [run]"
expect 0 "$submit" refused.yaml --nodes 2 --ranks-per-node 1 checkpoint.resume=never --dry-run
expect 2 "$submit" refused.yaml refused.yaml --nodes 2 --ranks-per-node 1
expect_lines 1 "belongs to another configuration"
expect 2 "$submit" refused.yaml --ranks-per-node 1
expect_lines 1 "--nodes N is missing"
expect 2 "$submit"
expect_lines 1 "a configuration is missing"
expect 2 "$submit" missing.yaml --nodes 2
expect_lines 1 "missing.yaml: no such configuration"
expect 2 "$submit" refused.yaml --nodes 0
expect_lines 1 "--nodes takes a number from 1, not '0'"
for time in soon 4h 1: 4 00:04:59; do
  expect 2 "$submit" refused.yaml --nodes 2 --time "$time"
  expect_lines 1 "submit: --time"
done
expect 0 "$submit" refused.yaml --nodes 2 --ranks-per-node 2 --time 5 --launcher mpirun --sbatch --exclusive --dry-run "run.output=a b"
for line in '#SBATCH --ntasks-per-node=2' '#SBATCH --time=5' '#SBATCH --signal=B:USR1@180' '#SBATCH --exclusive' 'settings=(run.output=a\ b)'; do
  grep -qxF -- "$line" <<<"$out" || fail "the script lacks: $line"
done
bash -n <<<"$out" || fail "the script is not sound"
[[ -z $(squeue -h) && ! -e refused && ! -e "a b" ]] || fail "a refusal or a dry run left something"

# ---- The doctor under srun -----------------------------------------------------------------------
doctor_answers=$(srun --nodes=2 --ntasks=2 --mpi=pmix "$switchyard" doctor 2>&1)
doctor_code=$?
# This machine may deserve a warning or a failure (exit code 6); the doctor itself must work.
((doctor_code == 0 || doctor_code == 6)) && grep -q "srun" <<<"$doctor_answers" && grep -qE "2 ranks" <<<"$doctor_answers" ||
  fail "doctor under srun ($doctor_code): $doctor_answers"
told "the doctor has seen two ranks under srun"

# ---- A run whose name YAML, shells and sbatch each read in their own way -------------------------
write_job odd_name 5
odd="odd ä=1 #b 'c' \"d\" 5%j"
expect 0 "$submit" odd_name.yaml --nodes 2 --ranks-per-node 1 "run.output=$odd"
odd_log=$odd/slurm-$(submitted_job).log
[[ $out == *"$odd_log"* ]] || fail "submit did not tell the log: $out"
must 60 "the end of the job with an odd name" grep -qs "\] done" "$odd_log"
! grep -q "queued again" "$odd_log" || fail "a job that was done is queued again: $(cat "$odd_log")"
told "a name with spaces, quotes and signs is a run's name"

# ---- The time is nearly up -----------------------------------------------------------------------
write_job by_srun 1000000
write_job by_mpirun 1000000
submit_job by_srun --time 60
# Queued again, it goes on with the course that it began.
submit_job by_mpirun --time 60 --launcher mpirun checkpoint.resume=never
for run in by_srun by_mpirun; do must 60 "25 steps of $run" has_steps "$run" 25; done
# Less is left than the 180 s of --signal; Slurm looks at the limits every 30 s.
for run in by_srun by_mpirun; do scontrol update "JobId=${id[$run]}" TimeLimit=3 || fail "the time limit of $run"; done
told "both train; their time is nearly up"
declare -A lengthened=()
queued_again() {  # and given more time, lest it get the next signal at once
  for run in by_srun by_mpirun; do
    [[ -z ${lengthened[$run]:-} ]] || continue
    grep -q 'stopped by SIGUSR1, saved: queued again' "${log[$run]}" || continue
    scontrol update "JobId=${id[$run]}" TimeLimit=60 && lengthened[$run]=1
  done
  ((${#lengthened[@]} == 2))
}
must 60 "the signal of the time limit" queued_again
told "both have saved and are queued again"

# ---- A node dies ---------------------------------------------------------------------------------
restarted() { grep -qs '"restarts": '"$2"',' "$1/metrics.jsonl"; }
for run in by_srun by_mpirun; do
  stopped_at=$(sed -nE 's/^stopped after step ([0-9]+) .*/\1/p' "${log[$run]}" | head -n 1)
  must 60 "restart of $run" restarted "$run" 1
  must 60 "25 steps more of $run" has_steps "$run" $((stopped_at + 25))
  grep -q '"restarts": 1, "step": '"$stopped_at"', "lost_steps": 0, .*"reason": "SIGUSR1"' "$run/metrics.jsonl" ||
    fail "$run stopped after step $stopped_at: $(grep event "$run/metrics.jsonl")"
done
cluster_kill_node n2
told "n2 is dead"
not_running() { [[ $(state_of "${id[$1]}") == PENDING ]]; }
for run in by_srun by_mpirun; do
  must 90 "$run is queued after the death of its node" not_running "$run"
  reached=$(last_step "$run")
  write_job "$run" $((reached + 15))
done
told "both are queued again"
cluster_start_node n2
for run in by_srun by_mpirun; do
  must 120 "$run goes on and ends" is_gone "${id[$run]}"
  grep -q '"restarts": 2' "$run/metrics.jsonl" || fail "$run: $(grep event "$run/metrics.jsonl")"
  grep -q "restart 2 of this run" "${log[$run]}" || fail "$run: no second restart in the log"
  grep -q "] done" "${log[$run]}" || fail "$run is not done"
  [[ $(grep -c '] start' "${log[$run]}") -ge 3 ]] || fail "$run: not every start in one log"
done
told "both are done"

# ---- Unbroken, as one of an array ----------------------------------------------------------------
most=$(($(last_step by_srun) > $(last_step by_mpirun) ? $(last_step by_srun) : $(last_step by_mpirun)))
write_job unbroken "$most"
write_job short 5
expect 0 "$submit" unbroken.yaml short.yaml --nodes 2 --ranks-per-node 1
array=$(submitted_job)
array_done() { [[ $(cat slurm-"$array"_[01].log 2>/dev/null | grep -c '] done') -eq 2 ]]; }
must 180 "the array of unbroken runs" array_done
[[ $(steps_of unbroken) -eq $most && $(steps_of short) -eq 5 ]] || fail "not one line a step"
! grep -q '"event": "restart"' unbroken/metrics.jsonl || fail "a restart of the unbroken run"
for run in by_srun by_mpirun short; do
  count=$(steps_of "$run")
  diff <(losses "$run") <(losses unbroken | head -n "$count") >curve.diff ||
    fail "$run is not the unbroken run: $(head -n 4 curve.diff)"
done
[[ $(losses unbroken | wc -l) -eq $most ]] || fail "no losses to compare"
told "losses equal over $(steps_of by_srun) steps under srun and $(steps_of by_mpirun) under mpirun"

# ---- A run that is killed before each checkpoint is not started for ever --------------------------
rank_of() {  # RUN RANK: the process of the rank
  local pid
  for pid in $(processes_with "SLURM_JOB_ID=${id[$1]}" "SLURM_PROCID=$2"); do
    [[ $(ps -o comm= -p "$pid") != switchyard ]] || { echo "$pid"; return; }
  done
  return 1
}
kill_each_start() {  # RUN
  local restart
  for restart in 0 1 2 3; do
    ((restart == 0)) || wait_for 60 restarted "$1" "$restart" || return 1
    wait_for 60 has_steps "$1" 3 && kill -KILL "$(rank_of "$1" 1)" || return 1
  done
  wait_for 60 grep -q "ended with code 19 (.*no progress: 3 restarts in a row" "${log[$1]}"
}
write_job doomed 1000000
submit_job doomed checkpoint.every=1000000
kill_each_start doomed &  # meanwhile the next
doomed_killer=$!

# ---- A hang ends the step, and the job goes on by itself ------------------------------------------
write_job hung 1000000
submit_job hung watchdog.step=3
must 60 "25 steps" has_steps hung 25
stopped_pid=$(rank_of hung 1) && kill -STOP "$stopped_pid"
must 40 "the report of the hang" grep -q "its process ${stopped_pid:-none} is stopped" "${log[hung]}"
grep -qE "^switchyard: rank 1 \(.*\) has (not entered|entered but does not complete) " "${log[hung]}" ||
  fail "the stopped rank is not named: $(cat "${log[hung]}")"
must 90 "the restart after the hang" restarted hung 1
grep -q '"restarts": 1, "step": [1-9].*"reason": "rank 1 ' hung/metrics.jsonl || fail "hung: $(grep event hung/metrics.jsonl)"
told "a hang was named, and the job went on"

wait "$doomed_killer" || { fail "doomed: $(cat "${log[doomed]}"; cat doomed/restarts.json)"; }
doomed_over() { [[ ! $(state_of "${id[doomed]}") =~ PENDING|RUNNING|COMPLETING ]]; }
must 30 "the end of the doomed run" doomed_over
[[ $(grep -c '] start' "${log[doomed]}") -eq 5 ]] || fail "doomed: $(grep '] ' "${log[doomed]}")"
grep -q '"code": 19' doomed/exit.json || fail "doomed: $(cat doomed/exit.json)"
told "a run that never got to a checkpoint was given up"

# ---- The node that runs the script dies ----------------------------------------------------------
past_step() { (($(last_step hung) + 0 >= $1)); }
must 60 "45 steps more" past_step $(($(last_step hung) + 45))
cluster_kill_node n1
hung_not_running() { [[ $(state_of "${id[hung]}") == PENDING ]]; }
must 90 "hung is queued after the death of the script's node" hung_not_running
cluster_start_node n1
must 120 "the restart after the death of the script's node" restarted hung 2
must 60 "25 steps more" past_step $(($(last_step hung) + 25))
grep '"restarts": 2' hung/metrics.jsonl | grep -q '"step": [1-9]' || fail "hung: $(grep event hung/metrics.jsonl)"
told "the node of the script died, and the job went on"

# ---- Preemption -----------------------------------------------------------------------------------
sbatch --partition=urgent --nodes=2 --exclusive --output=urgent.log --wrap 'echo urgent' >/dev/null || fail "no urgent job"
must 60 "the urgent job" grep -qs urgent urgent.log
grep -q 'stopped by SIGUSR1, saved: queued again' "${log[hung]}" || fail "preempted without a word: $(cat "${log[hung]}")"
must 120 "the restart after preemption" restarted hung 3
grep '"restarts": 3' hung/metrics.jsonl | grep -q '"lost_steps": 0, .*"reason": "SIGUSR1"' || fail "hung: $(grep event hung/metrics.jsonl)"
scancel "${id[hung]}"
told "a job of another partition took the nodes, and the job went on"

# ---- A cancelled job stays cancelled -------------------------------------------------------------
write_job cancelled 1000000
submit_job cancelled
must 60 "5 steps" has_steps cancelled 5
scancel "${id[cancelled]}"
ended() { grep -q '"code"' cancelled/exit.json 2>/dev/null; }
must 30 "the cancelled run has saved" ended
cancelled_gone() { [[ ! $(state_of "${id[cancelled]}") =~ RUNNING|COMPLETING ]]; }
must 30 "the cancelled job is gone" cancelled_gone
[[ $(state_of "${id[cancelled]}") != PENDING ]] || fail "the cancelled job was queued again"
grep -q '"code": *16' cancelled/exit.json || fail "cancelled: $(cat cancelled/exit.json)"
[[ -d cancelled/checkpoints/$(printf 'step-%08d' "$(last_step cancelled)") ]] || fail "cancelled: nothing was saved"
[[ ${KEEP_STORY:-} != 1 ]] || story
told "cancelled and saved"
finish
