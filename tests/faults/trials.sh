#!/usr/bin/env bash
# Random faults in jobs of the real program: the kind (stop, kill), the rank and the moment differ; each
# trial checks what the job says, its exit code, its end and its checkpoints. Prints the counts.
#   trials.sh NUMBER MPIEXEC SWITCHYARD [SEED]
set -uo pipefail
number=$1 mpiexec=$(realpath "$2") switchyard=$(realpath "$3")
RANDOM=${4:-1}
source "$(dirname "$0")/job.sh"
cd "$work" || exit 1
prepare_job
limit=2

declare -A count=([stop]=0 [kill]=0) right=([stop]=0 [kill]=0) section_count=()
longest_end=0 longest_notice=0

section_in_report() {
  sed -nE 's/.* (in setup|evaluation|checkpoint).*/\1/p' "$1" | head -n 1 | grep . || echo step
}

stop_trial() {
  kill -STOP "$victim"
  begun=$(now)
  local stopped=$begun
  finish_job 20
  expect_code 18
  expect_output 1 "^switchyard: rank $rank \\($host\\) has "
  expect_output 1 "process $victim is stopped"
  expect_exit_file 18 "rank $rank"
  [[ -e $job_name/watch/report.txt ]] || return
  local noticed=$(($(date -r "$job_name/watch/report.txt" +%s%3N) - stopped))
  ((noticed > longest_notice)) && longest_notice=$noticed
  ((noticed <= limit * 1100)) || fail "$job_name: named only after $noticed ms"
}

kill_trial() {
  kill -KILL "$victim"
  begun=$(now)
  finish_job 20
  ((took > longest_end)) && longest_end=$took
  ((took < 5000)) || fail "$job_name took $took ms to end"
  expect_code 137
  expect_output 1 "^switchyard: rank $rank \\($host\\) died without a word \\(process $victim\\)"
  expect_output 1 "^switchyard: "
  expect_exit_file 20 "rank $rank"
}

for ((trial = 1; trial <= number; ++trial)); do
  ranks=$((2 + RANDOM % 3))
  rank=$((RANDOM % ranks))
  kind=$( ((RANDOM % 2)) && echo stop || echo kill)
  before=$failures
  start "trial$trial" checkpoint.every=$((1 + RANDOM % 4))
  # From the moment that all ranks watch on: anywhere in setup, steps and checkpoints.
  all_watch() { for ((r = 0; r < ranks; ++r)); do [[ -s $job_name/watch/rank-$r ]] || return 1; done; }
  wait_for all_watch || fail "trial $trial: $(cat "trial$trial.out")"
  sleep "$(printf '0.%03d' $((RANDOM % 1000)))"
  victim=$(pid_of "$rank") || fail "trial $trial: no rank $rank"
  "${kind}_trial"
  expect_checkpoints_valid
  section=$(section_in_report "trial$trial/watch/report.txt")
  ((++count[$kind]))
  section_count[$section]=$((${section_count[$section]:-0} + 1))
  ((failures == before)) && ((++right[$kind]))
  rm -rf "trial$trial"
done
echo "$number trials: stopped ${right[stop]} of ${count[stop]} as they should be, killed ${right[kill]} of ${count[kill]}"
for section in "${!section_count[@]}"; do echo "  ${section_count[$section]} in section ${section#in }"; done
echo "  a stopped rank named after at most $longest_notice ms (limit $limit s); a job ended at most $longest_end ms after a kill"
finish
