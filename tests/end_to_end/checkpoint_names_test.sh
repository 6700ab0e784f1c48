#!/usr/bin/env bash
# Every way to name a checkpoint means the same to every command, with the same checks: other heads and
# another tokenizer are refused, what else differs is told, and one that a run removes meanwhile is no error.
#   checkpoint_names_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"

write_config small.yaml <<'YAML'
train: {num_steps: 4, global_batch: 12, micro_batch: 1}
optimizer: {learning_rate: 0.003, warmup_steps: 2}
checkpoint: {every: 2, keep: 2}
evaluate: {num_sequences: 5}
YAML
all() {
  if ((ranks > 1)); then on_ranks "$@" parallel.expert="$ranks"; else on_ranks "$@"; fi
}
prepare_corpus "$switchyard"
tr a-z A-Z < corpus.txt > upper.txt
expect 0 "$switchyard" prepare corpus.txt --output corpus.h5 --overwrite --train-tokenizer 310
expect 0 "$switchyard" prepare upper.txt --output upper.h5 --train-tokenizer 310
expect 0 "$switchyard" prepare upper.txt --output same_tokens.h5 --tokenizer corpus.h5
cp corpus.h5 copy.h5
expect 0 all train small.yaml

step=run/checkpoints/step-00000004
ln -s "$step" link
ln -s run linked_run
expect 0 all eval small.yaml
loss=$out
[[ $loss == "step 4  validation loss "*"tokens 160" && -z $err ]] || fail "eval: $out $err"
expect 0 "$switchyard" generate run --prompt "The 1" --tokens 8 --seed 3
text=$out
ways=(run/ run/checkpoints "./$step//" link)
[[ $ranks -gt 1 ]] || ways+=(run "$PWD/run" linked_run run/checkpoints/ "$step" link/)
for way in "${ways[@]}"; do
  expect 0 "$switchyard" checkpoint show "$way"
  [[ $out == *"step 4, "*"trained on corpus.h5 (checksums: train "* ]] || fail "show $way: $out"
  expect 0 "$switchyard" checkpoint verify "$way"
  expect 0 "$switchyard" checkpoint diff "$way" run
  expect 0 all eval small.yaml checkpoint.resume="$way" run.output=none
  [[ $out == "$loss" && -z $err && ! -e none ]] || fail "eval $way: $out $err"
  expect 0 "$switchyard" generate "$way" --prompt "The 1" --tokens 8 --seed 3
  [[ $out == "$text" && -z $err ]] || fail "generate $way: $out $err"
  expect 0 all train small.yaml run.output=next train.num_steps=5 checkpoint.resume="$way"
  [[ $out == *"resuming from step 4"* && $out != *"the checkpoint was"* ]] || fail "train $way: $out"
  rm -r next
  expect 4 all train small.yaml run.output=next train.num_steps=5 checkpoint.resume="$way" data.path=upper.h5
  expect_lines 1 "was trained with another tokenizer"
  expect 4 all eval small.yaml checkpoint.resume="$way" data.path=upper.h5
  expect_lines 1 "was trained with another tokenizer"
  rm -r next
done
expect 0 bash -c "cd $step && '$switchyard' generate . --prompt 'The 1' --tokens 8 --seed 3"
[[ $out == "$text" ]] || fail "generate .: $out"
expect 4 all train small.yaml run.output=next checkpoint.resume=corpus.txt
expect_lines 1 "checkpoint.resume: corpus.txt: there is no such checkpoint"
mkdir empty
for command in "train small.yaml run.output=next checkpoint.resume=" "eval small.yaml checkpoint.resume=" "generate " "checkpoint show "; do
  # shellcheck disable=SC2086 # two words and more
  expect 4 "$switchyard" ${command}empty
  expect_lines 1 "empty: holds no checkpoint; name a run's folder"
done
[[ ! -e next ]] || fail "a refused run left a folder"

# What reads the same numbers as another model is refused, what may be meant is told: by eval as by train.
for command in train eval; do
  command=("$command" small.yaml checkpoint.resume=run run.output=next)
  for change in "model.num_heads=2 model.head_dim=8" model.num_kv_heads=4 model.head_dim=16 model.hidden=64; do
    # shellcheck disable=SC2086
    expect 4 all "${command[@]}" $change
    expect_lines 1 "was trained with model."
    rm -rf next
  done
  for change in "experts.top_k=1 experts.top_k 2 1" "experts.top_k=1 experts.normalize_top_k true false" \
    "model.rope_base=500 model.rope_base 10000 500" "data.document_mask=true data.document_mask false true" \
    "model.sequence_length=16 model.sequence_length 32 16"; do
    read -r override key before now <<<"$change"
    expect 0 all "${command[@]}" "$override"
    [[ $out$err == *"the checkpoint was trained with $key $before; here it is $now"* ]] || fail "${command[0]} $override: $out $err"
    rm -rf next
  done
  # Another corpus under the same path is told with both checksums; the same one elsewhere is not.
  expect 0 all "${command[@]}" data.path=copy.h5
  [[ $out$err != *"the checkpoint was"* ]] || fail "the same corpus: $out $err"
  rm -rf next
  mv corpus.h5 first.h5
  cp same_tokens.h5 corpus.h5
  expect 0 all "${command[@]}"
  grep -Eq "was trained on another corpus: corpus.h5 \(checksums: train [0-9a-f]{16}, valid [0-9a-f]{16}\); here it is corpus.h5 \(train [0-9a-f]{16}, valid [0-9a-f]{16}\)" <<<"$out$err" ||
    fail "${command[0]}, another corpus: $out $err"
  mv first.h5 corpus.h5
  rm -rf next
done

# Beside a run that saves all the time and keeps one checkpoint, eval and generate find one that stays.
"$switchyard" train small.yaml run.output=busy train.num_steps=1000000 checkpoint.every=1 checkpoint.keep=1 > busy.out 2>&1 &
job=$!
until compgen -G 'busy/checkpoints/step-????????' > /dev/null || ! kill -0 $job 2>/dev/null; do :; done
for _ in 1 2 3 4 5 6; do
  expect 0 "$switchyard" eval small.yaml run.output=busy
  expect 0 "$switchyard" generate busy --tokens 3
done
kill -TERM $job
wait $job
[[ $? -eq 16 ]] || fail "the busy run: $(cat busy.out)"
finish
