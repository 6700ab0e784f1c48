#!/usr/bin/env bash
# Limits of the system on the program itself: what it says where memory, processes or threads are short.
#   limits_test.sh SWITCHYARD
set -uo pipefail
switchyard=$1
source "$(dirname "$0")/expect.sh"
source "$(dirname "$0")/../support/small_run.sh"
cd "$work" || exit 1
prepare_corpus "$switchyard"
write_config small.yaml <<<'train: {global_batch: 4, num_steps: 2}'
large=(small.yaml model.hidden=1024 experts.intermediate=1024)  # 250 MiB of weights, gradients and moments

# ---- Memory: the smallest limit, by name, before anything is allocated ---------------------------
expect 5 bash -c 'ulimit -v 550000; exec "$@"' - "$switchyard" train "${large[@]}"
expect_lines 1 "and ulimit -v, 537.1 MiB, leaves "
expect_lines 1 "raise it: ulimit -v unlimited"
expect 0 bash -c 'ulimit -v 4000000; exec "$@"' - "$switchyard" doctor
[[ $out == *"for each of its ranks by ulimit -v"* ]] || fail "doctor under ulimit -v: $out"
expect 0 bash -c 'ulimit -v 550000; exec "$@"' - "$switchyard" plan "${large[@]}"
[[ $out == *"even balanced"*"on which ulimit -v, 537.1 MiB, leaves so much"* ]] || fail "plan under ulimit -v: $out"
rm -rf run

# In a control group of 200 MiB below this shell's own, where such can be made (root, version 1).
group=$(sed -n 's/^[0-9]*:[^:]*\bmemory\b[^:]*://p' /proc/self/cgroup | head -n 1)
folder=/sys/fs/cgroup/memory$group/switchyard_test.$$
if [[ -n $group ]] && mkdir "$folder" 2>/dev/null; then
  trap 'rmdir "$folder"; rm -rf "$work"' EXIT
  echo $((200 << 20)) >"$folder/memory.limit_in_bytes"
  within() { expect "$1" bash -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$folder" "${@:2}"; }
  within 5 "$switchyard" train "${large[@]}"
  expect_lines 1 "/switchyard_test.$$ (memory.limit_in_bytes), 200.0 MiB, leaves 1"
  within 0 "$switchyard" doctor
  [[ $out == *" free of 200 MiB, "*" for each of its ranks by the control group "* ]] || fail "doctor in a group: $out"
  within 0 "$switchyard" plan "${large[@]}"
  [[ $out == *"even balanced"*"on which the control group "* ]] || fail "plan in a group: $out"
  rm -rf run
  within 0 "$switchyard" train small.yaml
  rm -rf run
else
  echo "no control group can be made here: left out"
fi

# ---- Threads: absurd numbers are refused, missing ones are told ----------------------------------
expect 2 env OMP_NUM_THREADS=100000 "$switchyard" train small.yaml
expect_lines 1 "OMP_NUM_THREADS asks for 100000 threads of a rank, and this host has "
expect 2 "$switchyard" train small.yaml run.threads=4096
expect_lines 1 "run.threads asks for 4096 threads"
[[ ! -e run ]] || fail "refused threads left a folder"
expect 5 bash -c 'ulimit -v 800000; OMP_NUM_THREADS=200 exec "$@"' - "$switchyard" train small.yaml
expect_lines 1 "of 200 threads (OMP_NUM_THREADS) only "
expect_lines 1 "ulimit -v is 800000"
expect 5 bash -c 'ulimit -v 800000; exec "$@"' - "$switchyard" prepare corpus.txt --output many.h5 --threads 1000
expect_lines 1 "the system starts no further thread (Resource temporarily unavailable)"
[[ $(echo many.h5*) == 'many.h5*' ]] || fail "left behind: $(echo many.h5*)"

# ---- A narrow terminal: the live line keeps within it --------------------------------------------
expect 0 env -u OMPI_COMM_WORLD_SIZE TERM=xterm script -qec "stty cols 40; '$switchyard' train small.yaml train.num_steps=30" typescript
lines=$(tr '\r' '\n' <typescript | grep '^step 2[0-9]/30' | sed 's/ *$//')
[[ -n $lines && $(wc -L <<<"$lines") -le 39 && $lines == *"loss"* ]] || fail "live line of 40 columns: $lines"
rm -rf run

# ---- Ranks of which MPI does not know: each would train alone -------------------------------------
for variables in "PMI_SIZE=2 PMI_RANK" "SLURM_STEP_NUM_TASKS=2 SLURM_PROCID" "MPI_LOCALNRANKS=2 MPI_LOCALRANKID"; do
  expect 2 env ${variables% *} "${variables#* }=0" "$switchyard" train small.yaml
  expect_lines 1 " started 2 ranks, but MPI knows of one only"
  # The first speaks for all, and the launcher would end the others.
  expect 0 env ${variables% *} "${variables#* }=1" "$switchyard" train small.yaml
  [[ -z $err && ! -e run ]] || fail "a second rank of $variables: $err $(ls)"
done
finish
