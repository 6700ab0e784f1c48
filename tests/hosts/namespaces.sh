# Sourced: hosts h1, h2, ... on one machine, as network namespaces with host names of their own that a
# bridge joins. MPI takes ranks for neighbours by host name, so ranks of two such hosts meet over TCP.
#   make_hosts N           makes h1 ... hN; device net0 has the address 10.77.0.I in hI
#   on_host hI COMMAND...  runs a command there
# $agent is what mpirun is to start its daemons with instead of ssh. All of it goes when the shell
# ends. Needs $work, a scratch folder; ends the script with 77 where hosts cannot be made.
prefix=sw$$
num_hosts=0

cannot() {
  echo "NOT TESTED: $*"
  exit 77
}

remove_hosts() {
  local i
  for ((i = 1; i <= num_hosts; ++i)); do
    ip link del "$prefix-$i" 2>/dev/null
    ip netns del "$prefix-h$i" 2>/dev/null
  done
  ip link del "$prefix-br" 2>/dev/null
  rm -rf "$work"
}

make_hosts() {
  [[ $(id -u) -eq 0 ]] || cannot "several hosts need root, for network namespaces"
  command -v ip >/dev/null && command -v tc >/dev/null || cannot "several hosts need ip and tc of Debian's iproute2"
  num_hosts=$1
  trap remove_hosts EXIT
  ip link add "$prefix-br" type bridge && ip link set "$prefix-br" up ||
    cannot "several hosts need network namespaces, which this container may not make"
  local i
  for ((i = 1; i <= num_hosts; ++i)); do
    { ip netns add "$prefix-h$i" &&
      ip link add "$prefix-$i" type veth peer name net0 netns "$prefix-h$i" &&
      ip link set "$prefix-$i" master "$prefix-br" up &&
      ip -n "$prefix-h$i" address add "10.77.0.$i/24" dev net0 &&
      ip -n "$prefix-h$i" link set net0 up &&
      ip -n "$prefix-h$i" link set lo up; } ||
      cannot "several hosts need network namespaces, which this container may not make"
  done
  write_agent
}

# Like ssh: the words behind the host are one command line for its shell. A folder named in
# $work/local is a different one on every host.
write_agent() {
  agent=$work/agent.sh
  cat > "$agent" <<AGENT
#!/bin/sh
host=\$1
shift
export SW_HOST=\$host
exec ip netns exec "$prefix-\$host" unshare --uts --mount sh -c '
  hostname "\$SW_HOST"
  if [ -s "$work/local" ]; then mount -t tmpfs none "\$(cat "$work/local")"; fi
  eval "\$@"' sh "\$@"
AGENT
  chmod +x "$agent"
  export OMPI_MCA_plm_rsh_agent=$agent
  # Ranks of all hosts share these cores.
  export OMPI_MCA_mpi_yield_when_idle=1
}

on_host() {
  local host=$1
  shift
  ip netns exec "$prefix-$host" unshare --uts sh -c 'hostname "$0"; exec "$@"' "$host" "$@"
}

# limit_link hI RATE: what leaves and what enters the host, to a rate like 1gbit.
limit_link() {
  local burst=128kb
  ip netns exec "$prefix-$1" tc qdisc replace dev net0 root tbf rate "$2" burst $burst latency 50ms &&
    tc qdisc replace dev "$prefix-${1#h}" root tbf rate "$2" burst $burst latency 50ms
}
