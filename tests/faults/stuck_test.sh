#!/usr/bin/env bash
# Ranks that are alive and stuck: asleep outside of any collective, in collectives of different groups,
# or not yet started.
#   stuck_test.sh MPIEXEC STUCK_PROGRAM SWITCHYARD RANKS
set -uo pipefail
mpiexec=$1 program=$2 switchyard=$3 ranks=$4
source "$(dirname "$0")/../launch/expect.sh"
cd "$work" || exit 1
host=$(hostname)
last=$((ranks - 1))

expect 0 "$mpiexec" -n "$ranks" "$program" fine done
[[ ! -e fine/watch/claim ]] || fail "a job that went well was ended"

expect 18 "$mpiexec" -n "$ranks" "$program" asleep asleep
expect_lines 1 "switchyard: hang: no progress for 1."
expect_lines 1 "switchyard: rank $last ($host) has not entered barrier, step 7 (group world of $ranks)"
expect_lines 1 "is alive, outside of any collective, at experts, layer 2 backward, step 7"
expect_lines 1 "switchyard: stack of rank $last:"
expect_lines 1 "#0 clock_nanosleep"  # where it is, by name
grep -q '"code": 18' asleep/exit.json || fail "exit.json: $(cat asleep/exit.json)"

# Each waits for the other: nobody is to blame alone, and both collectives are named.
expect 18 "$mpiexec" -n "$ranks" "$program" order order
expect_lines 1 "rank $last ($host) has not entered barrier, step 7 (group world of $ranks) but waits in barrier, step 7 (group twin of $ranks)"
expect_lines 1 "rank 0 ($host) has not entered barrier, step 7 (group twin of $ranks) but waits in barrier, step 7 (group world of $ranks)"

# Counts that do not fit: the report shows those of each rank, and where all are.
expect 18 "$mpiexec" -n "$ranks" "$program" counts counts
expect_lines 1 "switchyard: the counts of all_to_all, step 7 (group world of $ranks) differ: its ranks send $((32 * ranks * ranks - 32)) bytes and expect $((32 * ranks * ranks))"
expect_lines 1 "switchyard:   rank 0 ($host) sends $((32 * ranks)) bytes and expects $((32 * ranks)); it waits"
expect_lines 1 "switchyard:   rank $last ($host) sends $((32 * ranks - 32)) bytes and expects $((32 * ranks)); it has left"
for ((rank = 0; rank < ranks; ++rank)); do expect_lines 1 "switchyard: stack of rank $rank:"; done
grep -q '"reason": "the counts of all_to_all' counts/exit.json || fail "exit.json: $(cat counts/exit.json)"

# The last rank never starts: MPI itself waits, and there is no run yet.
export SWITCHYARD_START_SECONDS=2
printf 'run: {output: run}\ndata: {path: none.h5}\n' > small.yaml
expect 18 "$mpiexec" -n "$ranks" bash -c \
  'if [[ $OMPI_COMM_WORLD_RANK -eq '"$last"' ]]; then kill -STOP $$; fi; exec "$@"' late "$switchyard" train small.yaml
expect_lines 1 "switchyard: rank 0 ($host): MPI has not started within 2 s: not all of the $ranks ranks have arrived"
SWITCHYARD_START_SECONDS=soon expect 2 "$switchyard" train small.yaml
expect_lines 1 "SWITCHYARD_START_SECONDS is 'soon', not a number"
finish
