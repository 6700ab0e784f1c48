#!/usr/bin/env bash
# What doctor says of three hosts: which ranks are where, a slow link by its figure, a folder that is
# not shared. Through launch/mpirun.sh, over TCP between the hosts.
#   doctor_test.sh MPIRUN_SH SWITCHYARD
set -uo pipefail
mpirun_sh=$1
export SWITCHYARD=$2 COMMAND=doctor OMP_NUM_THREADS=1
source "$(dirname "$0")/../launch/expect.sh"
source "$(dirname "$0")/namespaces.sh"
make_hosts 3
cd "$work" || exit 1
mkdir shared own

doctor() { on_host h1 "$mpirun_sh" "$@"; }
says() { [[ $out == *"$1"* ]] || fail "nothing of '$1' in: $out"; }
# rate FROM TO: Gbit/s of the link as printed.
rate() { sed -nE "s/.* $1 to $2 \(.*\((.*) Gbit\/s\).*/\1/p" <<<"$out"; }
between() { awk -v x="${1:-0}" -v low="$2" -v high="$3" 'BEGIN { exit !(low <= x && x <= high) }'; }

limit_link h3 1gbit || fail "tc cannot shape a link here"
expect 0 doctor -n 4 --hosts h1:2,h2:1,h3:1 --device net0 --folder shared
says "h1: 2 ranks (0 ... 1)"
says "h2: 1 rank (2)"
says "h3: 1 rank (3)"
says "4 ranks on 3 hosts"
says "tcp on net0"
says "h1 (rank 0 to 1)"
says "shared is the same on all hosts"
says "file locks hold across hosts"
# TCP's own part of 1 Gbit/s is some 5%.
between "$(rate h1 h3)" 0.8 1.2 || fail "1 Gbit/s measured as '$(rate h1 h3)'"
between "$(rate h2 h3)" 0.8 1.2 || fail "1 Gbit/s measured as '$(rate h2 h3)'"
between "$(rate h1 h2)" 2 1000 || fail "a link that is not limited measured as '$(rate h1 h2)'"
grep -q "^warn  between *h1 to h3" <<<"$out" || fail "no warning of the slow link: $out"
# Of 8 choices the rank beside, on the slowest link, has many, and they travel once.
grep -q "^ok    dispatch *64 experts, top 8, on all 4 ranks: hierarchical (.* 1: all_to_all 1.00, all_gather " <<<"$out" ||
  fail "no kind of dispatch: $out"

# JSON of the same; a folder that each host has for itself is a failure with exit code 6.
echo "$work/own" > local
expect 6 doctor -n 2 --hosts h1:1,h2:1 --folder "$work/own" --json --experts 60 --top-k 1
: > local
says '"worst": "fail"'
says '60 experts, top 1, on all 2 ranks: all_to_all ('
says 'is another one on h2'
[[ $(grep -c '"name": "h[12]"' <<<"$out") -eq 2 ]] || fail "not two hosts: $out"

# Alone, and with copies within the host switched off.
expect 0 "$SWITCHYARD" doctor --folder shared
says "one rank: nothing to measure"
OMPI_MCA_btl_vader_single_copy_mechanism=none expect 0 "$mpirun_sh" -n 2 --folder shared
grep -q "^warn  single copy" <<<"$out" || fail "no word on single copies: $out"
expect 6 "$SWITCHYARD" doctor --folder nowhere
says "fail  folder"
left=$(find shared own -type f)
[[ -z $left ]] || fail "left behind: $left"
finish
