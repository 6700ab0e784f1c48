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

expect 0 train 1 epochs 'data.mixture=corpus.h5 1 epoch, code.h5 3 epochs'
[[ $(digest epochs) != "$wanted" ]] || fail "other shares change nothing"
expect 0 train 1 alone data.mixture=none
[[ $(digest alone) != "$wanted" ]] || fail "a mixture changes nothing"

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
