#!/usr/bin/env bash
# Trains a configuration on several ranks of this machine.
#   launch/mpirun.sh CONFIG [-n RANKS] [key.path=value ...]
# RANKS defaults to the number of cores. Each rank gets cores / RANKS threads, bound to cores when
# there are enough of them. SWITCHYARD names the binary (default: build/release/switchyard), COMMAND
# the command (default: train).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

usage() {
  sed -n '2,7s/^# \{0,1\}//p' "$0"
  exit 2
}
[[ $# -ge 1 && $1 != -* ]] || usage
config=$1
shift
cores=$(nproc)
ranks=$cores
if [[ ${1:-} == -n ]]; then
  [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || { echo "mpirun.sh: -n takes a number of ranks, not '${2:-}'" >&2; exit 2; }
  ranks=$2
  shift 2
fi
binary=${SWITCHYARD:-$root/build/release/switchyard}
[[ -x $binary ]] || { echo "mpirun.sh: $binary is missing; build it with launch/build.sh" >&2; exit 2; }

threads=$((cores / ranks > 0 ? cores / ranks : 1))
options=(-n "$ranks" --mca btl_base_warn_component_unused 0
         # Survivors of a failing rank get this many seconds to finish writing.
         --mca odls_base_sigkill_timeout 10)
if ((ranks * threads <= cores)); then
  options+=(--map-by "slot:PE=$threads" --bind-to core)
else
  # More ranks than cores: no binding, and waiting ranks give their core away.
  options+=(--oversubscribe --bind-to none --mca mpi_yield_when_idle 1)
fi
if [[ $(id -u) -eq 0 ]]; then  # root is the usual user inside a container
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMP_NUM_THREADS=$threads
exec mpirun "${options[@]}" "$binary" "${COMMAND:-train}" "$config" "$@"
