#!/usr/bin/env bash
# The command line of `switchyard bench`: names, options, refusals, exit codes.
#   program_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
mpiexec=$1 switchyard=$2 ranks=$3
source "$(dirname "$0")/../launch/expect.sh"
cd "$work" || exit 1
# mpirun waits that long after a failure, even when nobody is left.
export OMPI_MCA_odls_base_sigkill_timeout=0
run() { expect "$1" "$mpiexec" -n "$ranks" "$switchyard" bench "${@:2}"; }
names="step, linear, attention, experts, all_to_all, dispatch, ring, mixer"

run 2
expect_lines 1 "switchyard: bench: the benchmark's name is missing; there are $names"
run 2 atention
expect_lines 1 "unknown benchmark atention; did you mean attention?; there are $names"
run 2 xyz
expect_lines 1 "unknown benchmark xyz; there are $names"
run 2 step
expect_lines 1 "bench step needs a CONFIG"
run 2 linear --steps 0
expect_lines 1 "--steps must be 1"
run 2 linear --sizes 8x8
expect_lines 1 "--sizes 8x8: expected ROWSxOUTxIN"
run 2 linear --precision fp16
expect_lines 1 "--precision: 'fp16' is not a choice; use fp32 or bf16"
run 2 attention --sizes 1x8x3x2x8
expect_lines 1 "heads must be a multiple of kv heads"
run 2 linear something
expect_lines 1 "bench linear takes no argument something"
run 2 linear --lengths 192
expect_lines 1 "--lengths is an option of bench ring and bench mixer; bench linear has none"
run 2 linear --trace none.h5
expect_lines 1 "--trace is an option of bench dispatch; bench linear has none"
run 2 linear --disturb
expect_lines 1 "--disturb is an option of bench step; bench linear has none"
run 2 ring --sizes 8
expect_lines 1 "bench ring takes --lengths, not --sizes"
run 2 ring --lengths 192,zero
expect_lines 1 "--lengths zero: expected positions from 1 to 2^30"
run 2 ring --scheme 7x5
expect_lines 1 "--scheme 7x5: expected ring, all_gather, exact, ulysses, or RINGxULYSSES with a product of $ranks ranks"
run 2 ring --progress sometimes
expect_lines 1 "--progress: 'sometimes' is not a choice; use poll, thread or none"
run 2 ring --layout striped
expect_lines 1 "--layout: 'striped' is not a choice; use zigzag or contiguous"
run 2 ring --chunk 64
expect_lines 1 "--chunk is an option of bench mixer; bench ring has none"
run 2 mixer --kinds full,windows
expect_lines 1 "--kinds windows: expected some of full, window, blocks, segment, hierarchical, lsh, linear, retention, lightning, ssd, delta, gated_delta, with commas between"
run 2 mixer --sizes 8
expect_lines 1 "bench mixer takes --lengths, not --sizes"
run 2 ring --heads 3 --kv-heads 2
expect_lines 1 "--heads 3 must be a multiple of --kv-heads 2"
expect 0 "$switchyard" bench --help
for name in step linear attention experts all_to_all dispatch ring mixer; do
  grep -q "^  $name " <<<"$out" || fail "the help does not tell what $name measures: $out"
done

run 0 linear --precision fp32 --sizes 8x16x8 --steps 1 --warmup 0
[[ $(grep -c "^fp32 " <<<"$out") -eq 4 ]] || fail "rows of linear: $out"
grep -q "^# switchyard .* oneDNN [0-9]" <<<"$out" || fail "no versions: $out"
grep -q "^# $ranks ranks\? x 1 thread;" <<<"$out" || fail "no ranks: $out"

run 0 mixer --lengths 96,192 --heads 2 --head-dim 16 --chunk 32 --steps 1 --warmup 0
[[ $(grep -cE "^(fp32|bf16) +[a-z_]+ +(96|192) +(forward|backward) " <<<"$out") -eq 48 ]] || fail "rows of mixer: $out"
[[ $(grep -cE "^# ceiling: (copies|fp32 products|bf16 products) " <<<"$out") -eq 3 ]] || fail "ceilings of mixer: $out"
[[ $(grep -cE "^(fp32|bf16) [a-z_]+: (quicker|slower) than full attention" <<<"$out") -eq 10 ]] || fail "crossovers: $out"

run 0 mixer --kinds full,blocks,hierarchical,lsh --lengths 320 --heads 2 --head-dim 16 --precision fp32 --steps 1 --warmup 0
[[ $(grep -cE "^fp32 +(full|bigbird|fixed|strided|hierarchical|lsh) +320 +(forward|backward) .* [0-9.]+$" <<<"$out") -eq 12 ]] || fail "patterns of mixer: $out"
grep -qE " products +bytes +.* x full$" <<<"$out" || fail "no bounds of mixer: $out"

run 0 ring --lengths 192,384 --heads 4 --kv-heads 2 --head-dim 16 --scheme "${ranks}x1" --steps 1 --warmup 0
[[ $(grep -c "^bf16 " <<<"$out") -eq 4 ]] || fail "rows of ring: $out"
grep -q "ring $ranks x ulysses 1, zigzag, progress by poll" <<<"$out" || fail "no scheme: $out"

cat > step.yaml <<'YAML'
run: {output: run}
data: {path: none.h5}
model: {hidden: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1, sequence_length: 32}
experts: {num_experts: 3, intermediate: 32}
train: {global_batch: 12}
YAML
run 0 step step.yaml --steps 1 --warmup 0 --disturb
grep -qE "^disturbed +[0-9.]+ s median beside a busy program on one core: [0-9.]+ times the undisturbed [0-9.]+ s; scheduling alone makes [12]\.00 to [12]\.00$" <<<"$out" ||
  fail "no disturbed step: $out"

if [[ $ranks -eq 1 ]]; then
  run 2 all_to_all
  expect_lines 1 "needs two at least"
else
  run 0 all_to_all --steps 1 --sizes 4096,65536
  [[ $(grep -c " 0$" <<<"$out") -eq 2 ]] || fail "rows of all_to_all: $out"
fi
finish
