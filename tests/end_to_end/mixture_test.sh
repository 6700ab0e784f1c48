#!/usr/bin/env bash
# Several corpora in one run: one rank's bits on 1 to RANKS ranks and after stops, other bits with other shares, and
# mistakes told before any work. Exact mode makes "the same batches" a matter of one hash.
#   mixture_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"

write_config small.yaml <<'YAML'
train: {num_steps: 6, global_batch: 12, micro_batch: 1}
optimizer: {learning_rate: 0.01, warmup_steps: 2}
numerics: {exact: true}
YAML
prepare_corpus "$switchyard"
for ((i = 0; i < 300; ++i)); do printf 'def f%d(x): return x * %d + %d\n%%\n' "$i" "$((i % 7))" "$i"; done > code.txt
expect 0 "$switchyard" prepare code.txt --output code.h5
mixture='data.mixture=corpus.h5 0.7, code.h5 0.3'
# train RANKS RUN ARGUMENTS...
train() {
  local start=()
  (($1 == 1)) || start=("$mpiexec" -n "$1")
  "${start[@]}" "$switchyard" train small.yaml "$mixture" run.output="$2" "${@:3}"
}
digest() { "$switchyard" checkpoint show "$1" --digest | cut -d ' ' -f 1; }

for ((n = 1; n <= ranks; ++n)); do expect 0 train "$n" "run-$n"; done
wanted=$(digest run-1)
[[ -n $wanted ]] || fail "no hash"
for ((n = 2; n <= ranks; ++n)); do
  [[ $(digest "run-$n") == "$wanted" ]] || fail "$n ranks: $(digest "run-$n"), not $wanted"
done

# A run that ends after each two steps and goes on with other ranks.
expect 0 train 1 parts checkpoint.every=2
cp -r parts cut && rm -rf cut/checkpoints/step-00000006
expect 0 train "$ranks" cut checkpoint.every=2
[[ $out == *"resuming from step 4"* && $(digest cut) == "$wanted" ]] || fail "resumed: $(digest cut): $out"

# The corpus of data.path is one of the mixture: its loss is the run's.
expect 0 train 1 epochs 'data.mixture=corpus.h5 1 epoch, code.h5 3 epochs' evaluate.every=6
line=$(grep validation_loss epochs/metrics.jsonl)
[[ $line =~ \"validation_loss\":\ ([0-9.]+),\ \"loss_by_corpus\":\ \{\"corpus.h5\":\ ([0-9.]+),\ \"code.h5\":\ ([0-9.]+)\}\} &&
   ${BASH_REMATCH[1]} == "${BASH_REMATCH[2]}" && ${BASH_REMATCH[1]} != "${BASH_REMATCH[3]}" ]] || fail "losses by corpus: $line"
expect 0 "$switchyard" eval small.yaml data.path=code.h5 checkpoint.resume=epochs
[[ $out == *"validation loss ${BASH_REMATCH[3]:0:4}"* ]] || fail "the loss of code.h5 is not ${BASH_REMATCH[3]}: $out"
[[ $(digest epochs) != "$wanted" ]] || fail "other shares change nothing"
expect 0 train 1 alone data.mixture=none
[[ $(digest alone) != "$wanted" ]] || fail "a mixture changes nothing"

# A file that has changed under its name.
expect 0 "$switchyard" checkpoint show parts
[[ $out == *"of the mixture: code.h5 (checksum: train "* ]] || fail "the mixture's checksums: $out"
rm -rf parts/checkpoints/step-00000006
sed -i 's/def/fun/' code.txt
expect 0 "$switchyard" prepare code.txt --output code.h5 --overwrite
expect 0 train 1 parts checkpoint.every=2
[[ $out == *"code.h5 of data.mixture has changed: the checkpoint was trained on one with checksum"* ]] || fail "a changed file: $out"

expect 2 train 1 wrong 'data.mixture=corpus.h5 0.7, code.h5'
expect_lines 1 'code.h5: "code.h5" is not a corpus with its share; write "FILE.h5 WEIGHT, FILE.h5 WEIGHT"'
expect 2 train 1 wrong 'data.mixture=corpus.h5 1, code.h5 2 epochs'
expect_lines 1 'corpus.h5 has a weight, code.h5 has epochs: give weights to all, or epochs to all'
expect 6 train 1 wrong 'data.mixture=corpus.h5 1, none.h5 2'
expect_lines 1 'none.h5'
expect 0 "$switchyard" prepare code.txt --output other.h5 --train-tokenizer 300
expect 3 train 1 wrong 'data.mixture=corpus.h5 1, other.h5 2'
expect_lines 1 "other.h5: has another tokenizer than corpus.h5"
[[ ! -e wrong ]] || fail "a refused run left a folder"
finish
