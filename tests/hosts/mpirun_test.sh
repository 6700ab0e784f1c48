#!/usr/bin/env bash
# launch/mpirun.sh: what it makes of its arguments, right ones and wrong ones.
#   mpirun_test.sh MPIRUN_SH
set -uo pipefail
mpirun_sh=$1
source "$(dirname "$0")/../launch/expect.sh"
cd "$work" || exit 1
: > a.yaml
printf '#!/bin/sh\nexit 0\n' > binary
chmod +x binary
export SWITCHYARD=$work/binary
unset COMMAND OMP_NUM_THREADS
refused() {  # refused TEXT ARGUMENT...
  expect 2 "$mpirun_sh" "${@:2}" --dry-run
  expect_lines 1 "$1"
}
holds() { [[ $out == *"$1"* ]] || fail "'$1' is not in: $out"; }

refused "a configuration is missing"
refused "b.yaml: no such configuration" b.yaml
refused "comes first" train.num_steps=1 a.yaml
refused "-n takes a number of ranks, not 'x'" a.yaml -n x
refused "-n takes a number of ranks, not '0'" -n 0 a.yaml
refused "is not a number of ranks for host 'h'" a.yaml --hosts h:x
refused "a host without a name" a.yaml --hosts h,,i
refused "has room for 2 ranks only" a.yaml -n 3 --hosts h:1,i:1
refused "999999 ranks on one host of " a.yaml -n 999999
refused "99999 ranks on one host of " a.yaml --hosts h:99999,i:4
refused "no network device none9" a.yaml --device none9
expect 2 env -u OMPI_MCA_plm_rsh_agent -u SLURM_JOB_ID "$mpirun_sh" a.yaml --hosts no-such-host.invalid:2
expect_lines 1 "mpirun.sh: --hosts: "  # no such host, or no ssh to reach one
SWITCHYARD=$work/missing refused "is missing; build it" a.yaml
OMP_NUM_THREADS=many refused "not a number of threads" a.yaml
expect 0 "$mpirun_sh" --help
holds "--hosts"

expect 0 "$mpirun_sh" a.yaml -n 1 train.num_steps=3 "run.output=a b" --dry-run
holds "-n 1"
holds 'train a.yaml train.num_steps=3 run.output=a\ b'
expect 0 "$mpirun_sh" -n $((3 * $(nproc))) a.yaml --dry-run
holds "--oversubscribe --bind-to none"
expect 0 env OMP_NUM_THREADS=1 "$mpirun_sh" -n 1 a.yaml --dry-run
holds "--bind-to core"
# As many ranks as cores, each with a core of its own, also where the variable is set already.
cores=$(lscpu -p=CORE,SOCKET | grep -vc '^#')
if [[ $(lscpu -p=CORE,SOCKET | grep -v '^#' | sort -u | wc -l) -eq $cores && $(env -u OMP_THREAD_LIMIT nproc) -eq $cores ]]; then
  expect 0 env OMP_NUM_THREADS=1 "$mpirun_sh" -n "$cores" a.yaml --dry-run
  holds "--bind-to core"
fi
expect 0 "$mpirun_sh" a.yaml --hosts h,i:4 -n 6 --device 10.0.0.0/8 --dry-run
holds 'h:3\,i:4'
holds "btl_tcp_if_include 10.0.0.0/8"
expect 0 "$mpirun_sh" a.yaml --device mlx5_0:1 --dry-run
holds "UCX_NET_DEVICES=mlx5_0:1"
expect 0 env COMMAND=doctor "$mpirun_sh" --folder runs --dry-run
holds "doctor --folder runs"

# The exit code of a rank arrives.
printf '#!/bin/sh\nexit 17\n' > binary
expect 17 "$mpirun_sh" a.yaml -n 2
finish
