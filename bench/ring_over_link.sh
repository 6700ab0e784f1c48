#!/usr/bin/env bash
# At what length the ring hides its messages: `switchyard bench ring` on two hosts whose link is held to
# a rate, with each way of moving messages. The hosts are network namespaces of this machine (root,
# iproute2); ranks meet over TCP. The column "hides at" is the formula's length for the measured rates.
#   bench/ring_over_link.sh [RATE [OPTION of bench ring ...]]       1gbit, head by head keys and values
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
rate=${1:-1gbit}
options=("${@:2}")
[[ ${#options[@]} -gt 0 ]] ||
  options=(--lengths 512,1024,2048,4096,8192,16384 --heads 4 --kv-heads 4 --head-dim 64 --steps 3 --warmup 1)
export COMMAND=bench OMP_NUM_THREADS=1
work=$(mktemp -d)
source "$here/../tests/hosts/namespaces.sh"
make_hosts 2
limit_link h1 "$rate" || cannot "tc cannot shape a link here"
limit_link h2 "$rate" || cannot "tc cannot shape a link here"
cores=$(env -u OMP_NUM_THREADS nproc)  # nproc obeys that variable
# Every host takes all cores for its own and binds its rank to the first. Each rank gets another one.
cat > "$work/rank.sh" <<RANK
#!/bin/sh
exec taskset -c \$((OMPI_COMM_WORLD_RANK % $cores)) "${SWITCHYARD:-$here/../build/release/switchyard}" "\$@"
RANK
chmod +x "$work/rank.sh"
export SWITCHYARD=$work/rank.sh
for progress in poll thread none; do
  on_host h1 "$here/../launch/mpirun.sh" -n 2 --hosts h1:1,h2:1 --device net0 \
    ring --progress $progress "${options[@]}" || exit
  echo
done
