# Sourced by the tests of batch jobs: a real Slurm cluster of two nodes, n1 and n2, on this machine.
# Everything lives in the folder given: configuration, a munge key made for it, state, logs.
#   begin_in_cluster SWITCHYARD  how such a test begins: in its scratch folder, with a corpus and a cluster
#                              that ends with the script; 77 where none can be started
#   submitted_job              the number of the job that `submit` has just told, from $out
#   cluster_missing            prints what keeps a cluster from starting here; empty if nothing does
#   cluster_start FOLDER       controller, munge and both nodes; returns when both nodes are idle
#   cluster_kill_node NODE     the node dies: its daemon and everything that it started, at once
#   cluster_start_node NODE    the node starts again, with what its death left in its folders
#   cluster_stop               ends every process of the cluster; call it from a trap
#   wait_for SECONDS COMMAND   polls until the command succeeds; fails after SECONDS
source "$(dirname "${BASH_SOURCE[0]}")/../launch/expect.sh"
source "$(dirname "${BASH_SOURCE[0]}")/../support/small_run.sh"

begin_in_cluster() {
  local missing
  missing=$(cluster_missing)
  [[ -z $missing ]] || { echo "NOT TESTED: batch jobs need $missing"; exit 77; }
  trap 'cluster_stop; rm -rf "$work"' EXIT
  trap 'exit 1' INT TERM
  cd "$work" || exit 1
  export SWITCHYARD=$1
  export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_base_warn_component_unused=0
  prepare_corpus "$1"
  cluster_start "$work/cluster" || exit 1
}

submitted_job() { sed -nE 's/^job ([0-9]+) submitted/\1/p' <<<"$out"; }

cluster_missing() {
  [[ $(id -u) -eq 0 ]] || { echo "root, which slurmd needs"; return; }
  local program
  for program in slurmctld slurmd sbatch srun sinfo scontrol munged; do
    PATH=$PATH:/usr/sbin type "$program" >/dev/null 2>&1 ||
      { echo "Slurm: $program is missing (Debian: slurmctld slurmd slurm-client munge)"; return; }
  done
}

wait_for() {
  local -i last=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < last)) || return 1
    sleep 0.1
  done
}

# A port that nobody listens on.
free_port() {
  local -i port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

cluster_start() {
  cluster=$1
  PATH=$PATH:/usr/sbin
  declare -gA cluster_pids=()
  mkdir -p "$cluster"/{controller,spool,tmp-n1,tmp-n2,munge}
  chmod 700 "$cluster/munge"
  local host node
  host=$(hostname -s)
  dd if=/dev/urandom of="$cluster/munge/key" bs=128 count=1 status=none
  chmod 400 "$cluster/munge/key"
  cat > "$cluster/slurm.conf" <<CONF
ClusterName=switchyard
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
AuthType=auth/munge
# A requeued job waits until its credential has expired: 120 s unless told otherwise, at least 5.
AuthInfo=socket=$cluster/munge/socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$cluster/controller
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmctldLogFile=$cluster/slurmctld.log
SlurmdSpoolDir=$cluster/spool/%n
SlurmdPidFile=$cluster/slurmd-%n.pid
SlurmdLogFile=$cluster/slurmd-%n.log
# One for each node, or the PMIx servers of the two collide in one folder.
TmpFS=$cluster/tmp-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=pmix
SlurmdTimeout=6
KillWait=${cluster_kill_wait:-5}
MinJobAge=300
ReturnToService=2
JobRequeue=1
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
NodeName=n1 NodeHostName=$host NodeAddr=127.0.0.1 Port=$(free_port) CPUs=2 RealMemory=1500 State=UNKNOWN
NodeName=n2 NodeHostName=$host NodeAddr=127.0.0.1 Port=$(free_port) CPUs=2 RealMemory=1500 State=UNKNOWN
# Jobs of the second partition take the nodes of the first one's, which get their signal and 20 s to save.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=2
CONF
  export SLURM_CONF=$cluster/slurm.conf
  munged --foreground --force --key-file="$cluster/munge/key" --socket="$cluster/munge/socket" \
    --pid-file="$cluster/munge/pid" --log-file="$cluster/munge/log" --seed-file="$cluster/munge/seed" \
    >"$cluster/munged.out" 2>&1 &
  cluster_pids[munged]=$!
  disown
  wait_for 20 test -S "$cluster/munge/socket" || { echo "munged did not start: $(cat "$cluster"/munge/log)"; return 1; }
  slurmctld -D >"$cluster/slurmctld.out" 2>&1 &
  cluster_pids[slurmctld]=$!
  disown  # so that bash does not tell of its end
  for node in n1 n2; do cluster_start_node "$node"; done
  wait_for 60 cluster_idle || { echo "the nodes do not get idle: $(sinfo -N 2>&1); $(tail -n 5 "$cluster"/*.log)"; return 1; }
}

cluster_start_node() {
  slurmd -D -N "$1" >"$cluster/slurmd-$1.out" 2>&1 &
  cluster_pids[$1]=$!
  disown
}

cluster_idle() { [[ $(sinfo -h -N -p all -o '%N %t' 2>/dev/null | sort | tr '\n' ' ') == "n1 idle n2 idle " ]]; }

# Processes with all of these lines in their environment.
processes_with() {
  local file pid line environment
  for file in /proc/[0-9]*/environ; do
    pid=${file#/proc/}
    pid=${pid%/environ}
    environment=$({ tr '\0' '\n' <"$file"; } 2>/dev/null) || continue
    for line in "$@"; do grep -qxF -- "$line" <<<"$environment" || continue 2; done
    echo "$pid"
  done
}

# A node's ranks, scripts and orteds name it in their environment; their step daemons are their parents.
cluster_kill_node() {
  local -a tasks=() daemons=()
  local pid parent
  mapfile -t tasks < <(processes_with "SLURM_CONF=$SLURM_CONF" "SLURMD_NODENAME=$1")
  for pid in "${tasks[@]}"; do
    parent=$(ps -o ppid= -p "$pid" | tr -d ' ') || continue
    [[ $(ps -o comm= -p "$parent") != slurmstepd* ]] || daemons+=("$parent")
  done
  kill -KILL "${cluster_pids[$1]}" "${daemons[@]}" "${tasks[@]}" 2>/dev/null
  unset "cluster_pids[$1]"
}

cluster_stop() {
  [[ -n ${cluster:-} ]] || return 0
  local pid
  [[ ${#cluster_pids[@]} -eq 0 ]] || kill -KILL "${cluster_pids[@]}" 2>/dev/null
  # This shell got SLURM_CONF after its start and does not have it in what /proc shows.
  for pid in $(processes_with "SLURM_CONF=$SLURM_CONF"); do kill -KILL "$pid" 2>/dev/null; done
  cluster=
}
