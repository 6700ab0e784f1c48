#!/usr/bin/env bash
# Installs the Debian package into a fresh Debian 12 and trains a tiny model there on 2 ranks. Takes minutes and some 2 GB; needs
# root, debootstrap, dpkg-dev and a mirror of Debian. tests/run.sh does not call it.
#   tests/package_in_chroot.sh [BUILD_FOLDER]      MIRROR=URL: default http://deb.debian.org/debian
set -euo pipefail
build=$(realpath "${1:-build/release}")
[[ $(id -u) -eq 0 ]] || { echo "package_in_chroot.sh: only root may make a chroot" >&2; exit 2; }
command -v debootstrap >/dev/null || { echo "package_in_chroot.sh: install debootstrap" >&2; exit 2; }
[[ -x $build/switchyard ]] || { echo "package_in_chroot.sh: there is no $build/switchyard; build it first" >&2; exit 2; }

work=$(mktemp -d)
root=$work/debian
leave() {
  for mounted in dev/shm proc; do umount "$root/$mounted" 2>/dev/null || true; done
  # Nothing of the host may be below what is removed.
  grep -q " $root/" /proc/mounts || rm -rf "$work"
}
trap leave EXIT

cpack --config "$build/CPackConfig.cmake" -B "$work/package" >/dev/null
debootstrap --variant=minbase bookworm "$root" "${MIRROR:-http://deb.debian.org/debian}" >"$work/debootstrap.log" ||
  { tail -n 5 "$work/debootstrap.log" >&2; exit 1; }
cp /etc/resolv.conf "$root/etc/"
cp "$work"/package/switchyard_*.deb "$root/root/"
mount -t proc proc "$root/proc"
mkdir -p "$root/dev/shm"
mount -t tmpfs tmpfs "$root/dev/shm"

in_chroot() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
in_chroot bash -euc 'apt-get update -q && apt-get install -qy --no-install-recommends /root/switchyard_*.deb' >"$work/apt.log" 2>&1 ||
  { tail -n 20 "$work/apt.log" >&2; exit 1; }
in_chroot switchyard --version
in_chroot bash -euc '
  cd /root
  for i in $(seq 200); do printf "The %d tokens of text %d passed the gate.\n%%\n" $((i * 7 % 97)) $i; done >corpus.txt
  switchyard prepare corpus.txt --output corpus.h5 >/dev/null
  cat >tiny.yaml <<YAML
run: {output: run}
data: {path: corpus.h5}
model: {hidden: 32, num_layers: 2, num_heads: 4, num_kv_heads: 2, sequence_length: 32}
experts: {num_experts: 4, top_k: 2, intermediate: 32}
train: {num_steps: 20, global_batch: 4}
YAML
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
  mpirun --oversubscribe -n 2 switchyard train tiny.yaml parallel.expert=2 | grep "^done after step 20 of 20"
  switchyard report run --output run.html
  test -s /usr/share/man/man1/switchyard.1* && test -s /usr/share/bash-completion/completions/switchyard
  apt-get remove -qy switchyard >/dev/null 2>&1
  [[ ! -e /usr/bin/switchyard ]]'
echo "installed, trained, and removed again"
