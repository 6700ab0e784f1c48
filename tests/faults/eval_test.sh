#!/usr/bin/env bash
# A rank that is stopped during `switchyard eval`, bench or doctor, which have no run of their own: named,
# all end with 18, the report stays; a clean end leaves nothing behind.
#   eval_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
mpiexec=$1 switchyard=$2 ranks=$3
source "$(dirname "$0")/job.sh"
cd "$work" || exit 1
prepare_job
last=$((ranks - 1))
evaluate=("$mpiexec" --mca odls_base_sigkill_timeout 2 -n "$ranks" "$switchyard" eval small.yaml run.output=trained
          parallel.expert="$ranks" watchdog.setup="$limit" watchdog.step="$limit")

expect 2 "$switchyard" eval small.yaml run.output=trained evaluate.num_sequences=x
expect 4 "$switchyard" eval small.yaml run.output=trained
expect_lines 1 "trained is not a folder; train first"
[[ ! -e trained ]] || fail "an evaluation made the folder of a run"

expect 0 "$mpiexec" -n "$ranks" "$switchyard" train small.yaml run.output=trained train.num_steps=2
expect 0 "${evaluate[@]}"
[[ $(grep -c "validation loss" <<<"$out") -eq 1 ]] || fail "no loss: $out"
compgen -G "trained/eval-*" > /dev/null && fail "left behind: $(ls trained)"

job_name=hang
"${evaluate[@]}" > hang.out 2>&1 &
job=$!
is_watched() { compgen -G "trained/eval-*/watch/rank-$last" > /dev/null; }
wait_for is_watched || fail "not watched: $(cat hang.out)"
victim=$(pid_of "$last") && kill -STOP "$victim"
finish_job 20
expect_code 18
expect_output 1 "^switchyard: rank $last \($host\) has (not entered|entered but does not complete) "
expect_output 1 "^switchyard:   its process $victim is stopped, by a signal or a debugger"
compgen -G "trained/eval-*/watch/report.txt" > /dev/null || fail "no report"
[[ ! -e trained/watch/report.txt ]] || fail "the report went to the training's folder"

# Benchmarks and doctor watch from the system's folder for temporary files.
export TMPDIR=$work/temporary
mkdir "$TMPDIR"
begin() {  # NAME ARGUMENT...: a command under way, and watched
  job_name=$1
  "$mpiexec" --mca odls_base_sigkill_timeout 1 -n "$ranks" "$switchyard" "$@" --limit 2 > "$1.out" 2>&1 &
  job=$!
  is_watched() { compgen -G "$TMPDIR/$job_name-*/watch/rank-$last" > /dev/null; }
  wait_for is_watched || fail "$1: not watched: $(cat "$1.out")"
}
begin bench all_to_all --steps 100000
victim=$(pid_of "$last") && kill -STOP "$victim"
finish_job 20
expect_code 18
expect_output 1 "^switchyard: rank $last \($host\) has (not entered|entered but does not complete) "
compgen -G "$TMPDIR/bench-*/watch/report.txt" > /dev/null || fail "no report of bench"
begin doctor
victim=$(pid_of 0) && kill -STOP "$victim"
finish_job 20
expect_code 18
expect_output 1 "^switchyard: rank 0 \($host\) has (not entered|entered but does not complete) "
rm -rf "${TMPDIR:?}"/*
expect 0 "$mpiexec" -n "$ranks" "$switchyard" bench all_to_all --sizes 64 --steps 1
expect 2 "$mpiexec" -n "$ranks" "$switchyard" bench all_to_all --sizes x
expect_lines 1 "switchyard: bench: --sizes x"
expect 2 "$mpiexec" -n "$ranks" "$switchyard" doctor --limit -1
expect_lines 1 "--limit must be 0"
"$mpiexec" -n "$ranks" "$switchyard" doctor > doctor.out 2>&1
(($? == 0 || $? == 6)) || fail "doctor: $(cat doctor.out)"
! compgen -G "$TMPDIR/*-[0-9]*/watch" > /dev/null || fail "left behind: $(ls "$TMPDIR")"
finish
