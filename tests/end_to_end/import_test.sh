#!/usr/bin/env bash
# A run's model goes out and comes in again: it has the same validation loss, trains on in its own folder and as the
# beginning of another run, on any number of ranks; what is in the way or wrong is told, and nothing is left half made.
#   import_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"

write_config small.yaml <<'YAML'
train: {num_steps: 6, global_batch: 12, micro_batch: 1}
optimizer: {learning_rate: 0.01, warmup_steps: 2}
evaluate: {num_sequences: 8}
checkpoint: {every: 3}
YAML
prepare_corpus "$switchyard"
expect 0 on_ranks train small.yaml parallel.expert="$ranks"
expect 0 on_ranks eval small.yaml
wanted=$(grep -oE 'loss[^0-9]*[0-9.]+' <<<"$out" | grep -oE '[0-9.]+' | head -n 1)
[[ -n $wanted ]] || fail "no loss: $out"

expect 0 "$switchyard" export run --output published --dtype f32 --shard-size 20KB
[[ $out == *"tensors of family mixtral in"*"files"* ]] || fail "export: $out"
[[ -e published/model.safetensors.index.json && -e published/generation_config.json ]] || fail "published: $(ls published)"
expect 0 "$switchyard" import published --output tuned model.sequence_length=32 run.precision=fp32
[[ $out == *"tuned/checkpoints/step-00000000"*"tensors of family mixtral"* ]] || fail "import: $out"
expect 0 "$switchyard" checkpoint verify tuned
expect 0 on_ranks eval tuned/config.yaml data.path=corpus.h5 evaluate.num_sequences=8 checkpoint.resume=tuned
[[ $out == *"$wanted"* ]] || fail "the loss is not $wanted: $out"

# Weights are verified while they are read: damaged ones never appear, and an earlier checkpoint is taken.
newest=run/checkpoints/step-00000006
cp -r "$newest" kept
printf '\x55' | dd of="$newest/rank-00000.h5" bs=1 seek=5000 conv=notrunc status=none
expect 4 "$switchyard" export "$newest" --output damaged
expect_lines 1 "the file has changed"
[[ ! -e damaged && ! -e damaged.tmp ]] || fail "a damaged checkpoint was exported"
expect 0 "$switchyard" export run --output earlier
expect_lines 1 "skipping step-00000006"
rm -r "$newest" && mv kept "$newest"

more=(data.path=corpus.h5 train.num_steps=2 train.global_batch=12 train.micro_batch=1 parallel.expert="$ranks")
expect 0 on_ranks train small.yaml run.output=further checkpoint.start_from=tuned train.num_steps=2 parallel.expert="$ranks"
expect 0 on_ranks train tuned/config.yaml "${more[@]}"
expect 0 "$switchyard" checkpoint show tuned
[[ $out == *"weights, imported of $PWD/published"* ]] || fail "the lineage: $out"
# The tokenizer of a run of our own goes out in the form that others read.
if ((ranks == 1)); then
  expect 0 "$switchyard" prepare corpus.txt --output words.h5 --train-tokenizer 300
  expect 0 "$switchyard" train small.yaml data.path=words.h5 run.output=words train.num_steps=1
  expect 0 "$switchyard" export words --output words_out
  expect_lines 0 "no tokenizer"
  expect 0 "$switchyard" prepare corpus.txt --output again.h5 --tokenizer words_out/tokenizer.model
  cmp words.h5 again.h5 || fail "another tokenizer came out"
  grep -q '"eos_token_id": 1' words_out/generation_config.json || fail "no end of text: $(cat words_out/*.json)"
fi
expect 0 "$switchyard" export run --output bytes
expect_lines 1 "no tokenizer: of the run's, \"bytes\", there is no file that others read"
# A model of our own goes out as the first family that can say it, or not at all.
expect 0 on_ranks train small.yaml run.output=shared experts.shared=1 train.num_steps=1 parallel.expert="$ranks"
expect 2 "$switchyard" export shared --output nothing
expect_lines 1 "no family of published models has a config.json for this model"
expect_lines 1 "mixtral: experts.shared.intermediate"
[[ ! -e nothing && ! -e nothing.tmp ]] || fail "a refused export left a folder"

expect 2 "$switchyard" import published --output tuned
expect_lines 1 "tuned: is there already; choose another name"
expect 2 "$switchyard" import published --output other model.num_heads=8
expect_lines 1 "model.num_heads"
cp -r published broken
rm broken/model-00002-of-*.safetensors
expect 3 "$switchyard" import broken --output other
expect_lines 1 "is missing, and model.safetensors.index.json names it; download it"
expect 3 "$switchyard" import corpus.txt --output other
expect 2 "$switchyard" export run --output other --shard-size 5
expect 2 "$switchyard" export run --output other --dtype f8
[[ ! -e other && ! -e other.tmp ]] || fail "a refused command left a folder"
finish
