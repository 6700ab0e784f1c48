#!/usr/bin/env bash
# A rank that throws while the others wait for it: in setup (no memory), in a step (damaged data), in a
# checkpoint (no room for its file). The message stands there once with rank and host, the job ends
# within 5 s with the code of the cause, exit.json tells it, nothing stays.
#   throw_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
mpiexec=$1 switchyard=$2 ranks=$3
source "$(dirname "$0")/job.sh"
cd "$work" || exit 1
prepare_job
last=$((ranks - 1))
limit=60

expect_failure() {
  local wanted=$1 text=$2
  finish_job 30
  # From the rank's last word, which it writes before anything else, to the end of mpirun.
  local log
  log=$(grep -l "ended with code $wanted: " "$job_name"/logs/rank-*.log | head -n 1)
  took=$((ended - $(date -r "${log:-.}" +%s%3N)))
  echo "$job_name: the job ended with code $code, $took ms after the failure"
  ((took < 5000)) || fail "$job_name took $took ms to end after the failure"
  expect_code "$wanted"
  expect_output 1 "^switchyard: .*$text"
  expect_output 1 "^switchyard: "
  expect_exit_file "$wanted" "$text"
}

# The address space of the last rank holds MPI, but not the activations: seen before any are made.
preamble=(bash -c 'if [[ $OMPI_COMM_WORLD_RANK -eq '"$last"' ]]; then ulimit -v 2000000; fi; exec "$@"' limited)
start setup model.hidden=1024 train.micro_batch=24 train.global_batch=$((ranks * 24)) model.sequence_length=512
expect_failure 5 "rank $last: the run needs .*ulimit -v"

# There is room for what is used with balanced routing, but not for what is reserved for any.
preamble=(bash -c 'if [[ $OMPI_COMM_WORLD_RANK -eq '"$last"' ]]; then ulimit -v 1050000; fi; exec "$@"' limited)
sequences=$((256 - 32 * ranks))
start room experts.top_k=1 experts.intermediate=1024 train.micro_batch=$sequences train.global_batch=$((ranks * sequences))
expect_failure 5 "rank $last: the run reserves .* of address space on a rank, .*ulimit -v"
preamble=()

# The last rank may write no file of more than 64 KiB: a checkpoint does not fit, and all learn of it.
start save checkpoint.every=20
wait_for is_stepping || fail "save: no steps: $(cat save.out)"
prlimit --pid "$(pid_of "$last")" --fsize=65536
expect_failure 6 "rank $last: .*refuses"

# One damaged chunk of tokens in the middle: the rank that draws a sequence from it finds out.
prepare_long
size=$(stat -c %s long.h5)
head -c 64 /dev/zero | tr '\0' '\377' | dd of=long.h5 bs=1 seek=$((size / 2)) conv=notrunc status=none
start data data.path=long.h5 train.global_batch="$ranks" train.micro_batch=1
expect_failure 3 "rank [0-9] \\($host\\): .*long.h5"
finish
