#!/usr/bin/env bash
# Failures under mpirun: the message comes once and the exit code arrives.
#   ranks_test.sh MPIEXEC FAILING_PROGRAM SWITCHYARD RANKS
set -uo pipefail
mpiexec=$1 program=$2 switchyard=$3 ranks=$4
source "$(dirname "$0")/expect.sh"
cd "$work" || exit 1
# mpirun waits that long after a failure, even when nobody is left.
export OMPI_MCA_odls_base_sigkill_timeout=0
run() { expect "$1" "$mpiexec" -n "$ranks" "$program" "${@:2}"; }
last=$((ranks - 1))
host=$(hostname)
prefix="switchyard: "
[[ $ranks -eq 1 ]] || prefix="switchyard: rank $last ($host): "

run 3 one-fails
expect_lines 1 "${prefix}the last rank fails"
expect_lines 1 "switchyard: "
run 4 all-fail
expect_lines 1 "every rank fails"
run 4 all-know
expect_lines 1 "switchyard: the ranks know"
expect_lines 0 "MPI_ABORT"
run 5 memory
expect_lines 1 "out of memory"
run 1 foreign
expect_lines 1 "internal error: index 3"
run 16 stopped
expect_lines 0 "switchyard: "
if [[ $ranks -gt 1 ]]; then
  # mpirun itself may crash or hang if it kills a stopped rank at once (Open MPI 4.1.4).
  OMPI_MCA_odls_base_sigkill_timeout=1 SWITCHYARD_END_SECONDS=1 run 18 late
  expect_lines 1 "switchyard: rank 0 ($host): MPI has not ended within 1 s: not all of the $ranks ranks have come to the end"
fi
SWITCHYARD_END_SECONDS=soon run 2 stopped
expect_lines 1 "SWITCHYARD_END_SECONDS is 'soon', not a number of seconds"
run 2 nonsense
expect_lines 1 "switchyard: unknown command nonsense"
expect_lines 0 "MPI_ABORT"
run 2 load --bogus
expect_lines 1 "switchyard: load: unknown option --bogus"
run 0 load --help
[[ $(grep -c "Loads a configuration" <<<"$out") -eq 1 ]] || fail "help came not once: $out"

# A command of one process runs on rank 0 alone and says so.
run 16 one
expect_lines $((ranks > 1 ? 1 : 0)) "one runs in one process"

printf 'run: {output: a b}\ndata: {path: a.h5}\n' >good.yaml
run 0 load good.yaml train.num_steps=50 train.global_batch=12
[[ $(grep -c "^good.yaml 50 a b$" <<<"$out") -eq $ranks ]] || fail "loaded: $out"
run 2 load good.yaml train.num_steps=x model.hiden=3
expect_lines 1 "switchyard: command line: train.num_steps=x: expected a whole number, got x"
expect_lines 1 "switchyard: command line: model.hiden=3: unknown key"
expect_lines 0 "MPI_ABORT"
run 2 load none.yaml
expect_lines 1 "switchyard: none.yaml: cannot read the configuration"
run 2 load good.yaml train.global_batch=$((ranks + 1)) parallel.expert=$((ranks + 1))
expect_lines 1 "parallel.expert"

expect 0 "$mpiexec" -n "$ranks" "$switchyard" config good.yaml
[[ $(grep -c "^run:" <<<"$out") -eq 1 ]] || fail "config ran more than once: $out"
finish
