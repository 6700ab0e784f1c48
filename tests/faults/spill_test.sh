#!/usr/bin/env bash
# Disks that fill under spilled activations, in a step and before the first one: the job ends with code
# 6, the message stands there once with the file, the bytes and what to change, checkpoints are valid,
# nothing is left in the folder, and the same command goes on: on the curve of a run that spills nothing.
#   spill_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
mpiexec=$1 switchyard=$2 ranks=$3
source "$(dirname "$0")/job.sh"
cd "$work" || exit 1
prepare_job
last=$((ranks - 1))
limit=60
mkdir spilled
spills=(model.num_layers=6 checkpoint.every=20 activations.policy=spill activations.store=hdf5
  activations.folder="$work/spilled")

has_steps() { [[ $(num_steps) -ge $1 ]]; }
newest_checkpoint() { find "$job_name/checkpoints" -maxdepth 1 -name 'step-*[0-9]' | sort | tail -n 1; }
curve() { grep '"loss"' "$1/metrics.jsonl" | sed -E 's/.*"step": ([0-9]+), "loss": ([^,]+),.*"grad_norm": ([^,]+),.*/\1 \2 \3/'; }

expect_full_disk() {
  local who=$1 reason=$2
  finish_job 30
  echo "$job_name: the job ended with code $code, $took ms after its start"
  expect_code 6
  expect_output 1 "^switchyard: .*rank $who \($host\): $work/spilled/spilled-[0-9]+-rank-$who\.h5: spilled activations need [0-9]+ more bytes there, which the system refuses: $reason\. Free some space, set activations\.folder to a larger disk, or use activations\.policy recompute; the checkpoints are intact"
  expect_output 1 "^switchyard: "
  expect_exit_file 6 "spilled activations need [0-9]+ more bytes"
  [[ -z $(ls -A spilled) ]] || fail "$job_name: left in the folder: $(ls spilled)"
}

# In a step, on the last rank alone, between two checkpoints.
start step "${spills[@]}"
wait_for has_steps 22 || fail "step: no steps: $(cat step.out)"
prlimit --pid "$(pid_of "$last")" --fsize=65536
expect_full_disk "$last" "File too large"
expect_checkpoints_valid
compgen -G "step/checkpoints/step-*.tmp" > /dev/null && fail "step: half a checkpoint is left"
saved=$(newest_checkpoint)
[[ -n $saved ]] || fail "step: no checkpoint before the disk was full"
lines_before=$(num_steps)
((lines_before > 20)) || fail "step: it was to fail after a checkpoint, not after $lines_before steps"

# A disk that is full from the start, under the same run: its checkpoint stays the newest.
if [[ $(id -u) -eq 0 ]] && unshare --mount mount -t tmpfs none spilled 2>/dev/null; then
  cat > small_disk.sh <<'SCRIPT'
#!/bin/bash
mount -t tmpfs -o size=256k none spilled && exec "$@"
SCRIPT
  chmod +x small_disk.sh
  preamble=(bash -c 'if [[ $OMPI_COMM_WORLD_RANK -eq '"$last"' ]]; then exec unshare --mount ./small_disk.sh "$@"; fi; exec "$@"' limited)
  start step "${spills[@]}"
  expect_full_disk "$last" "No space left on device"
  preamble=()
  [[ $(newest_checkpoint) == "$saved" ]] || fail "step: $(newest_checkpoint) instead of $saved"
  expect_checkpoints_valid
else
  echo "NOT TESTED: a full disk before the first step needs root, for a mount of its own"
fi

# With room again it goes on from the checkpoint; a run that keeps everything has the same curve.
start step "${spills[@]}"
wait_for has_steps 45 || fail "step: did not go on: $(cat step.out)"
kill -TERM "$(pid_of 0)"
finish_job 30
expect_code 16
expect_output 1 "resuming from step $((10#${saved##*step-}))"
start kept model.num_layers=6
wait_for has_steps 45 || fail "kept: no steps: $(cat kept.out)"
kill -TERM "$(pid_of 0)"
finish_job 30
expect_code 16
diff <(curve step | head -n 45) <(curve kept | head -n 45) > curve.diff || fail "the curve changed: $(head -n 4 curve.diff)"
[[ $(curve step | head -n 45 | wc -l) -eq 45 ]] || fail "not 45 steps"
finish
