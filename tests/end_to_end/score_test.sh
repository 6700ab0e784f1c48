#!/usr/bin/env bash
# switchyard score: the same numbers on 1 to RANKS ranks, losses of masked files on them,
# windows of long texts, and rows that are told to be wrong.
#   score_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"

write_config small.yaml <<'YAML'
train: {num_steps: 30, global_batch: 12, micro_batch: 1}
optimizer: {learning_rate: 0.02, warmup_steps: 3}
YAML
prepare_corpus "$switchyard"
expect 0 "$switchyard" train small.yaml

# on N COMMAND...: on so many ranks.
on() { if (($1 == 1)); then "$switchyard" "${@:2}"; else "$mpiexec" -n "$1" "$switchyard" "${@:2}"; fi; }

cat > rows.jsonl <<'JSONL'
{"context": "The 7 tokens of", "continuation": " sequence"}
{"context": "The 7 tokens of ", "continuation": "sequence"}
{"context": "", "continuation": "T"}
{"context": "passed the gate, and a context that is much longer than the model's sequences, of which the end is taken: exp", "continuation": "ert"}
{"text": "The 7 tokens of sequence 1 passed the gate, and expert 1 of 5 took them.\n"}
{"text": "short"}
{"context": "x", "continuation": "QQQQ"}
JSONL
for ((n = 1; n <= ranks; ++n)); do expect 0 on "$n" score run rows.jsonl --output "scores-$n.jsonl"; done
for ((n = 2; n <= ranks; ++n)); do
  cmp scores-1.jsonl "scores-$n.jsonl" || fail "$n ranks: $(diff scores-1.jsonl "scores-$n.jsonl")"
done
expect 0 on "$ranks" score run rows.jsonl --expert "$ranks" --output scores-expert.jsonl
cmp scores-1.jsonl scores-expert.jsonl || fail "experts on $ranks ranks: $(diff scores-1.jsonl scores-expert.jsonl)"
expect 2 on "$ranks" score run rows.jsonl --expert "$((ranks + 1))"
expect_lines 1 "--expert must divide the number of ranks, $ranks"
expect 0 "$switchyard" score run rows.jsonl
[[ $out == "$(< scores-1.jsonl)" ]] || fail "the standard output: $out"
[[ $(wc -l < scores-1.jsonl) == 7 ]] || fail "rows: $(< scores-1.jsonl)"
# row N FIELD
row() { sed -n "$1p" scores-1.jsonl | sed -nE "s/.*\"$2\":([^,}]*).*/\1/p"; }
# A space at the end of a context counts to the continuation.
[[ $(sed -n 1p scores-1.jsonl) == "$(sed -n 2p scores-1.jsonl)" ]] || fail "spaces: $(head -n 2 scores-1.jsonl)"
[[ $(row 1 num_tokens) == 9 && $(row 3 num_tokens) == 1 && $(row 4 num_tokens) == 3 ]] || fail "counts: $(< scores-1.jsonl)"
[[ $(row 5 num_tokens) == 73 && $(row 5 num_bytes) == 73 && $(row 6 num_tokens) == 5 ]] || fail "counts: $(< scores-1.jsonl)"
[[ $(row 7 is_greedy) == false ]] || fail "greedy: $(< scores-1.jsonl)"

# The most probable token by generate is greedy, and no other.
expect 0 "$switchyard" generate run --prompt 'The 7 tokens of sequence' --tokens 1 --temperature 0 --ids
token=$(tail -n 1 <<< "$out")
printf -v character "\\x$(printf %x "$token")"
for other in "$character" Z; do
  printf '{"context": "The 7 tokens of sequence", "continuation": "%s"}\n' "$other"
done > greedy.jsonl
expect 0 "$switchyard" score run greedy.jsonl
[[ $out == *'"is_greedy":true'*$'\n'*'"is_greedy":false'* ]] || fail "greedy ($character): $out"

# Prompts that are masked: the validation loss is that of the other tokens, the same on any number of ranks.
for ((i = 0; i < 40; ++i)); do
  printf '{"prompt": "The %d tokens of", "text": " sequence %d"}\n' $((i % 9)) $((i % 7))
done > tasks.jsonl
expect 0 "$switchyard" prepare tasks.jsonl --output tasks.h5 --prompt-field prompt --valid 0.5
mean() { on "$1" eval small.yaml data.path=tasks.h5 data.loss_mask="$2" 2> mean.err | sed -nE 's/.*validation loss ([^ ]*) .*/\1/p'; }
masked=$(mean 1 true)
is_near() { awk -v a="$1" -v b="$2" 'BEGIN { d = (a - b) / b; exit !(a > 0 && d < 2e-6 && -d < 2e-6) }'; }
for ((n = 2; n <= ranks; ++n)); do is_near "$(mean "$n" true)" "$masked" || fail "$n ranks: a masked loss of $(mean "$n" true), not $masked"; done
if is_near "$(mean 1 false)" "$masked"; then fail "the mask changes nothing"; fi
expect 0 on "$ranks" train small.yaml data.path=tasks.h5 data.loss_mask=true run.output=masked train.num_steps=4
expect 0 "$switchyard" train small.yaml data.path=tasks.h5 data.loss_mask=true run.output=masked-1 train.num_steps=4
last_loss() { sed -nE '$s/.*"cross_entropy": ([^,}]*).*/\1/p' "$1/metrics.jsonl"; }
is_near "$(last_loss masked)" "$(last_loss masked-1)" || fail "masked training: $(last_loss masked) on $ranks ranks, $(last_loss masked-1) on one"
expect 0 "$switchyard" train small.yaml data.path=tasks.h5 run.output=unmasked train.num_steps=1
[[ $out$err == *"tasks.h5 has a loss mask, which data.loss_mask: false leaves unused"* ]] || fail "an unused mask: $out$err"
expect 2 "$switchyard" train small.yaml data.loss_mask=true run.output=wrong
expect_lines 1 'corpus.h5 has no loss mask; make one with `switchyard prepare --prompt-field`, or write loss_mask: false'
[[ ! -e wrong ]] || fail "a refused run left a folder"
expect 2 "$switchyard" train small.yaml data.path=tasks.h5 data.loss_mask=true numerics.exact=true
expect_lines 1 "write loss_mask: false or exact: false"

# Rows that are neither form.
for wrong in '{"context": "a"}' '{"text": "a", "context": "b"}' 'nothing' '{"context": "a", "continuation": ""}'; do
  printf '%s\n' '{"text": "fine"}' "$wrong" > wrong.jsonl
  expect 3 "$switchyard" score run wrong.jsonl
done
expect_lines 1 "row 2: the continuation has no tokens"
printf '{"context": "a", "continuation": "%050d"}\n' 7 > wrong.jsonl
expect 3 "$switchyard" score run wrong.jsonl
expect_lines 1 "row 1: the continuation has 50 tokens, but the model reads 32 at most"
expect 3 "$switchyard" score run none.jsonl
expect 4 "$switchyard" score nowhere rows.jsonl
finish
