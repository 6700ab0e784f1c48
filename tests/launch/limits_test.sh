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
[[ $out == *"even balanced"*"of which ulimit -v leaves"* ]] || fail "plan under ulimit -v: $out"
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
  [[ $out == *"even balanced"*"of which the control group "* ]] || fail "plan in a group: $out"
  rm -rf run
  within 0 "$switchyard" train small.yaml
  rm -rf run
else
  echo "no control group can be made here: left out"
fi
finish
