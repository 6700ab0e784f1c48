#!/usr/bin/env bash
# Signals that ask for an end: a second one while a checkpoint is being saved waits for the save, one in
# a step does not.
#   signal_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
mpiexec=$1 switchyard=$2 ranks=$3
source "$(dirname "$0")/job.sh"
cd "$work" || exit 1
prepare_job
last=$((ranks - 1))
limit=60

# The stopped rank holds the save up, so that both signals come while it lasts.
start save checkpoint.every=1
stop_in is_saving "$last" || fail "save: not stopped: $(cat save.out)"
first=$(pid_of 0)
kill -USR1 "$first"
sleep 0.7  # more than what counts as the same request
kill -TERM "$first"
sleep 0.2
kill -CONT "$victim"
finish_job 20
expect_code 16
expect_output 1 "^switchyard: the checkpoint is saved first"
expect_output 1 "^Stopped by SIGUSR1"
expect_exit_file 16 "SIGUSR1"
compgen -G "save/checkpoints/step-*.tmp" > /dev/null && fail "save: a checkpoint was given up"
expect_checkpoints_valid
compgen -G "save/checkpoints/step-*" > /dev/null || fail "save: no checkpoint"

# In a step that a stopped rank holds up, the second signal ends the job.
start step
stop_in is_stepping "$last" || fail "step: not stopped: $(cat step.out)"
first=$(pid_of 0)
# As when another rank has died while this one sends to it: no end of this one.
kill -PIPE "$first"
kill -USR1 "$first"
sleep 0.7
kill -TERM "$first"
sleep 0.2
kill -CONT "$victim" 2>/dev/null
finish_job 20
expect_code 16
expect_output 1 "^switchyard: stopped at once by a second signal; nothing was saved"
[[ ! -d step/checkpoints || -z $(ls step/checkpoints) ]] || fail "step: something was saved"
finish
