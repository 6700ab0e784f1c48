#!/usr/bin/env bash
# Trains a configuration on several ranks, on this machine or on several hosts.
#   launch/mpirun.sh CONFIG [-n RANKS] [--hosts a,b:4,...] [--device IF] [--dry-run] [key.path=value ...]
#   COMMAND=doctor launch/mpirun.sh [-n RANKS] [--hosts a,b:4,...] [--device IF] [OPTION ...]
# -n RANKS      ranks of the job; default: one for each core of this machine, or what --hosts adds up to
# --hosts LIST  hosts, each with its number of ranks behind a colon; a host without one gets an equal
#               part of RANKS, or as many ranks as this machine has cores. All hosts are taken to have
#               as many cores as this one, and to see this folder and the binary under the same paths.
# --device IF   what joins the hosts: a network device (eth1), a subnet where their names differ
#               (10.1.0.0/16), or an InfiniBand port (mlx5_0:1); docs/hosts.md
# --dry-run     prints the mpirun command instead of running it
# A rank gets cores / ranks threads, bound to cores when there are enough of them. COMMAND names the
# command (default: train; eval, doctor, ...), SWITCHYARD the binary (default: build/release/switchyard, or
# that of the installation).
# SWITCHYARD_GRACE_SECONDS (default 1): mpirun ends the other ranks by SIGTERM so long after one failed,
# and by SIGKILL so long after that.
# The exit code is that of the first rank that failed; 16 means: run the same command again to go on.
set -euo pipefail
# Closed standard streams are held, so that no file that a program opens gets their numbers.
for stream in 0 1 2; do [[ -e /proc/self/fd/$stream ]] || eval "exec $stream</dev/null"; done
root=$(cd "$(dirname "$0")/.." && pwd)

usage() { sed -n '2,18s/^# \{0,1\}//p' "$0"; }
refuse() {
  echo "mpirun.sh: $*" >&2
  exit 2
}
is_number() { [[ $1 =~ ^[1-9][0-9]{0,5}$ ]]; }
# require_host NAME: refuses one that ssh, which starts the ranks there, could not find.
require_host() {
  local settings address
  command -v ssh >/dev/null ||
    refuse "--hosts: ssh is missing, which starts the ranks on '$1'; apt-get install openssh-client"
  settings=$(ssh -G "$1" 2>/dev/null) || refuse "--hosts: '$1' is not the name of a host"
  ! grep -qE '^proxy(jump|command) ' <<<"$settings" || return 0  # found from elsewhere
  address=$(sed -n 's/^hostname //p' <<<"$settings")
  getent hosts "$address" >/dev/null ||
    refuse "--hosts: no host '$1' is known here; spell it as in /etc/hosts, or ask: getent hosts $1"
}

command=${COMMAND:-train}
ranks='' hosts='' device='' is_dry_run=''
words=()  # what the program gets
while [[ $# -gt 0 ]]; do
  case $1 in
    -n | -np) is_number "${2:-}" || refuse "$1 takes a number of ranks, not '${2:-}'"; ranks=$2; shift 2 ;;
    --hosts) [[ -n ${2:-} && ${2:-} != -* ]] || refuse "--hosts takes a list like a,b:4"; hosts=$2; shift 2 ;;
    --device) [[ -n ${2:-} && ${2:-} != -* ]] || refuse "--device takes a network device"; device=$2; shift 2 ;;
    --dry-run) is_dry_run=1; shift ;;
    -h | --help) usage; exit 0 ;;
    *) words+=("$1"); shift ;;
  esac
done
case $command in
  train | eval)
    [[ ${#words[@]} -gt 0 ]] || { usage >&2; refuse "a configuration is missing"; }
    config=${words[0]}
    [[ $config != *=* && $config != -* ]] || refuse "the configuration comes first, not '$config'"
    [[ -f $config ]] || refuse "$config: no such configuration; configs/ holds some" ;;
esac
built=$root/build/release/switchyard
[[ -x $built || ! -x $root/../../bin/switchyard ]] || built=$root/../../bin/switchyard  # an installed tree
binary=${SWITCHYARD:-$built}
[[ -x $binary && ! -d $binary ]] || refuse "$binary is missing; build it with launch/build.sh"
binary=$(cd "$(dirname "$binary")" && pwd)/$(basename "$binary")
command -v mpirun >/dev/null || refuse "mpirun is missing; install it with launch/install_packages.sh"

# Cores, not hyper-threads, and only those that this shell may use. nproc alone would tell OMP_NUM_THREADS.
cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
if command -v lscpu >/dev/null; then
  physical=$(lscpu -p=CORE,SOCKET | grep -v '^#' | sort -u | wc -l)
  ((physical == 0 || physical >= cores)) || cores=$physical
fi

# --hosts: the list with a number for each host, the largest of them, their sum.
slots='' most=0 sum=0
if [[ -n $hosts ]]; then
  # Another agent, and Slurm within a job of its own, start the ranks by other names.
  by_ssh=1
  [[ -z ${OMPI_MCA_plm_rsh_agent:-}${SLURM_JOB_ID:-} ]] || by_ssh=''
  IFS=, read -r -a names <<<"$hosts"
  if [[ -n $ranks ]]; then each=$(((ranks + ${#names[@]} - 1) / ${#names[@]})); else each=$cores; fi
  for name in "${names[@]}"; do
    count=$each
    if [[ $name == *:* ]]; then
      count=${name##*:}
      name=${name%:*}
      is_number "$count" || refuse "--hosts: '$count' is not a number of ranks for host '$name'"
    fi
    [[ -n $name ]] || refuse "--hosts: a host without a name in '$hosts'"
    [[ -n $is_dry_run || -z $by_ssh || $name == localhost || $name == "$(hostname)" ]] || require_host "$name"
    slots+=${slots:+,}$name:$count
    sum=$((sum + count))
    most=$((count > most ? count : most))
  done
  ranks=${ranks:-$sum}
  ((ranks <= sum)) || refuse "-n $ranks: --hosts $hosts has room for $sum ranks only"
  most=$((most < ranks ? most : ranks))
else
  ranks=${ranks:-$cores}
  most=$ranks
fi

# Absurd numbers would fill the memory, or hang, before anybody could say so.
((most <= 32 * cores)) ||
  refuse "$most ranks on one host of $cores cores are too many: at most 32 a core, $((32 * cores)); for more hosts use --hosts, or launch/submit"

threads=${OMP_NUM_THREADS:-$((cores / most > 0 ? cores / most : 1))}
is_number "$threads" || refuse "OMP_NUM_THREADS is '$threads', not a number of threads"
export OMP_NUM_THREADS=$threads
grace=${SWITCHYARD_GRACE_SECONDS:-1}
is_number "$grace" || refuse "SWITCHYARD_GRACE_SECONDS is '$grace', not a number of seconds"
# How the ranks tell a person to go on; the program adds the configuration and what follows it.
printf -v SWITCHYARD_STARTED_BY '%s%q -n %q' "${SWITCHYARD:+$(printf 'SWITCHYARD=%q ' "$SWITCHYARD")}" "$0" "$ranks"
[[ -z $hosts ]] || SWITCHYARD_STARTED_BY+=$(printf ' --hosts %q' "$hosts")
[[ -z $device ]] || SWITCHYARD_STARTED_BY+=$(printf ' --device %q' "$device")
export SWITCHYARD_STARTED_BY
options=(-n "$ranks" --mca btl_base_warn_component_unused 0
         # mpirun waits that long even when nobody is left: so a job that failed is over soon, and
         # the others have twice that to finish writing.
         --mca odls_base_sigkill_timeout "$grace")
if ((most * threads <= cores)); then
  # Neighbouring ranks on one host, each with cores of its own.
  options+=(--map-by "slot:PE=$threads" --bind-to core)
else
  # More ranks than cores: no binding, and waiting ranks give their core away.
  options+=(--map-by slot --oversubscribe --bind-to none --mca mpi_yield_when_idle 1)
fi
if [[ -n $slots ]]; then
  # The other hosts start in this folder, with these variables of this shell.
  options+=(--host "$slots" --wdir "$PWD" -x OMP_NUM_THREADS)
  while IFS= read -r name; do
    options+=(-x "$name")
  done < <(compgen -e | grep -E '^(SWITCHYARD_.*|HDF5_USE_FILE_LOCKING|LD_LIBRARY_PATH|NO_COLOR)$')
fi
case $device in
  '') ;;
  */*) options+=(--mca btl_tcp_if_include "$device" --mca oob_tcp_if_include "$device") ;;
  mlx*:* | hfi*:* | bnxt*:*) options+=(--mca pml ucx -x UCX_NET_DEVICES="$device") ;;
  *)
    [[ -e /sys/class/net/$device ]] ||
      refuse "--device: this machine has no network device $device; it has $(ls -m /sys/class/net)"
    options+=(--mca btl_tcp_if_include "$device" --mca oob_tcp_if_include "$device") ;;
esac
if [[ $(id -u) -eq 0 ]]; then  # root is the usual user inside a container
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

whole=(mpirun "${options[@]}" "$binary" "$command" ${words[@]+"${words[@]}"})
if [[ -n $is_dry_run ]]; then
  printf 'OMP_NUM_THREADS=%q' "$threads"
  printf ' %q' "${whole[@]}"
  echo
  exit 0
fi
# In this process's place: signals reach mpirun, which passes USR1 on to the ranks.
exec "${whole[@]}"
