#!/usr/bin/env bash
# The program from text to text: prepare, train, stop by a signal, resume, evaluate, generate, plan.
#   program_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
mpiexec=$1 switchyard=$2 ranks=$3
source "$(dirname "$0")/../launch/expect.sh"
source "$(dirname "$0")/../support/small_run.sh"
cd "$work" || exit 1

write_config small.yaml <<'YAML'
train: {num_steps: 40, global_batch: 24, micro_batch: 2}
optimizer: {learning_rate: 0.003, warmup_steps: 4}
evaluate: {every: 20}
checkpoint: {every: 15, keep: 2}
YAML
train() { "$mpiexec" -n "$ranks" "$switchyard" train small.yaml parallel.expert="$ranks" "$@"; }
# mpirun waits a second after a failure, even when nobody is left: not where nothing was begun.
refuse() { OMPI_MCA_odls_base_sigkill_timeout=0 expect "$@"; }
# The figures that a stop must not change.
curve() { grep '"loss"' "$1/metrics.jsonl" | sed -E 's/, "num_tokens".*//'; }
value() { sed -nE "s/.*\"$2\": ([^,}]+).*/\1/p" "$1/metrics.jsonl" | tail -n 1; }

prepare_corpus "$switchyard"
expect 0 train
[[ $out == *"done after step 40 of 40"* ]] || fail "no summary: $out"
[[ $(grep -c '"loss"' run/metrics.jsonl) -eq 40 ]] || fail "not one line a step"
[[ $(grep -c validation_loss run/metrics.jsonl) -eq 2 ]] || fail "not two evaluations"
[[ $(ls run/checkpoints | tr '\n' ' ') == "step-00000030 step-00000040 " ]] || fail "checkpoints: $(ls run/checkpoints)"
grep -q '"code": *0' run/exit.json || fail "exit.json: $(cat run/exit.json)"

# A signal in the middle: the step is finished, saved, exit code 16; the same command goes on, and the
# whole curve equals the unbroken one bit for bit.
train run.output=stopped > stopped.out 2>&1 &
job=$!
until [[ -s stopped/metrics.jsonl && $(grep -c '"loss"' stopped/metrics.jsonl) -ge 5 ]] || ! kill -0 $job 2>/dev/null; do :; done
pkill -USR1 -f "^$switchyard train small.yaml .*run.output=stopped" || fail "nobody to signal"
wait $job
code=$?
[[ $code -eq 16 ]] || fail "a stopped run ended with $code: $(cat stopped.out)"
grep -q '"code": *16' stopped/exit.json || fail "exit.json: $(cat stopped/exit.json)"
stopped_at=$(value stopped step)
((stopped_at >= 5 && stopped_at < 40)) || fail "stopped at step $stopped_at"
expect 0 train run.output=stopped
[[ $out == *"resuming from step $stopped_at"* ]] || fail "did not resume: $out"
diff <(curve run) <(curve stopped) > curve.diff || fail "the curve changed: $(head -n 4 curve.diff)"
[[ $(value run memory_bytes) -ge 1 ]] || fail "no memory figure"
cmp -s <("$switchyard" checkpoint diff run/checkpoints/step-00000040 stopped/checkpoints/step-00000040 >/dev/null; echo $?) <(echo 0) ||
  fail "the final checkpoints differ"

# Another layout goes on from the same checkpoint.
expect 0 "$switchyard" eval small.yaml parallel.expert=1
alone=$(sed -nE 's/.*validation loss ([0-9.]+).*/\1/p' <<<"$out")
expect 0 "$mpiexec" -n "$ranks" "$switchyard" eval small.yaml parallel.expert="$ranks"
together=$(sed -nE 's/.*validation loss ([0-9.]+).*/\1/p' <<<"$out")
awk -v a="$alone" -v b="$together" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(a > 0 && d <= 1e-5 * a) }' ||
  fail "validation loss $alone on one rank, $together on $ranks"
expect 0 train run.output=run train.num_steps=43
[[ $out == *"resuming from step 40"*"done after step 43 of 43"* ]] || fail "no longer run: $out"

# Memory: what the plan says for the rows that came is what the allocator counted.
expect 0 "$switchyard" plan small.yaml parallel.expert="$ranks" --ranks "$ranks" --rows "$(value stopped max_rows)"
planned=$(sed -nE 's/^ *peak +([0-9]+).*/\1/p' <<<"$out")
[[ $planned == "$(value stopped memory_bytes)" ]] || fail "planned $planned bytes, used $(value stopped memory_bytes)"

# Text from a checkpoint of any layout, without the corpus; the same seed gives the same text.
mv corpus.h5 elsewhere.h5
expect 0 "$switchyard" generate run --prompt "The 14 tokens" --tokens 16 --seed 3
[[ $out == "The 14 tokens"?* ]] || fail "generated: $out"
text=$out
expect 0 "$switchyard" generate run/checkpoints/step-00000043 --prompt "The 14 tokens" --tokens 16 --seed 3
[[ $out == "$text" ]] || fail "not the same text: $out"
expect 2 "$switchyard" generate run --prompt "The" --tokens 1000
expect_lines 1 "ask for at most 28"
expect 0 "$switchyard" generate run --prompt "The 14 tokens of sequence"  # 32 positions: 6 fit, not 100
[[ $out == "The 14 tokens of sequence"* ]] || fail "generated: $out"
expect 2 "$switchyard" generate run --prompt "The 14 tokens of sequence 3 passed the gate"
expect_lines 1 "give a shorter prompt"
expect 4 "$switchyard" generate nowhere
mv elsewhere.h5 corpus.h5

if [[ $ranks -eq 1 ]]; then  # what no number of ranks changes
  # The same tokens as ids (the document's beginning first), as bytes and as text; and the end of the room told.
  generate() { expect 0 "$switchyard" generate run --prompt "The 14" --seed 5 --temperature 3 "$@"; }
  generate --ids
  cp "$work/out" tokens.ids
  expect_lines 1 "stopped after 25 tokens: the model was trained on sequences of 32 tokens, and layer 0 attends to all tokens before"
  [[ $(head -n 7 tokens.ids | tr '\n' ' ') == "256 84 104 101 32 49 52 " && $(wc -l < tokens.ids) -eq 32 ]] || fail "ids: $(cat tokens.ids)"
  generate --raw
  cmp -s "$work/out" <(tail -n +2 tokens.ids | while read -r id; do printf "\\x$(printf %x "$id")"; done) || fail "raw bytes: $(xxd "$work/out")"
  LC_ALL=C grep -qP '[\x80-\xff]' "$work/out" || fail "no byte beyond ASCII to lose: $(xxd "$work/out")"
  generate
  [[ $(wc -c < "$work/out") -ne 32 ]] || fail "text lost nothing that raw keeps: $out"
  expect 2 "$switchyard" generate run --ids --raw
  expect_lines 1 "--raw and --ids exclude each other"

  # Windows in all layers: text goes on where the trained length ends, and what comes before stays.
  windows=("model.mixer=[{kind: window, window: 8, sinks: 1}, {kind: window, window: 20}]")
  expect 0 train run.output=windows "${windows[@]}" train.num_steps=10
  expect 0 "$switchyard" generate windows --ids --tokens 31 --temperature 0
  cp "$work/out" within.ids
  expect 0 "$switchyard" generate windows --ids --tokens 400 --temperature 0
  [[ -z $err && $(wc -l < "$work/out") -gt 200 ]] || fail "windows stopped: $(wc -l < "$work/out") tokens $err"
  head -n 32 "$work/out" | cmp -s - within.ids || fail "other tokens before the limit"
  for wrong in temperature=inf temperature=nan temperature=-1 top-p=0 top-p=1.01 seed=-1 tokens=0; do
    expect 2 "$switchyard" generate run "--$wrong"
    expect_lines 1 "--${wrong%%=*} must be"
  done
  # A lesser instruction set packs weights in its own way, in the same bytes: the plan made without the limit holds.
  for precision in fp32 bf16; do
    for limit in sse4 ""; do
      output=isa$limit-$precision
      expect 0 env SWITCHYARD_MAX_ISA=$limit "$switchyard" train small.yaml run.output="$output" run.precision=$precision \
        train.num_steps=1
      expect 0 "$switchyard" plan small.yaml run.precision=$precision --rows "$(value "$output" max_rows)"
      planned=$(sed -nE 's/^ *peak +([0-9]+).*/\1/p' <<<"$out")
      [[ $planned == "$(value "$output" memory_bytes)" ]] || fail "$output: planned $planned, used $(value "$output" memory_bytes)"
    done
  done

  plot=$(dirname "$0")/../../launch/plot.sh
  mkdir "one \"step\""
  head -n 1 run/metrics.jsonl > "one \"step\"/metrics.jsonl"
  for folder in run "one \"step\""; do
    expect 0 "$plot" "$folder"
    [[ $out == *"$folder/plots/loss.png"* && -z $err ]] || fail "plot: $out $err"
    for picture in loss speed balance; do
      [[ $(tail -c 8 "$folder/plots/$picture.png" | head -c 4) == IEND ]] || fail "$picture.png is not whole"
    done
  done
  expect 6 bash -c "cp() { head -c 99 \"\$1\" > \"\$2\"; return 1; }; export -f cp; exec '$plot' run"  # a full disk
  [[ -z $(ls run/plots | grep -v '\.png$') ]] || fail "a part of a picture: $(ls run/plots)"
  expect 3 "$plot" nowhere
  expect 2 "$plot"
  expect 2 "$plot" run run

  # Commands whose result is what they print fail where that finds no room; a run leaves its result in its
  # folder, whether its words find room, a reader, or neither.
  expect 6 bash -c "'$switchyard' generate run --tokens 3 >/dev/full"
  expect 0 bash -c "'$switchyard' train small.yaml run.output=full train.num_steps=3 >/dev/full"
  "$switchyard" train small.yaml run.output=unread train.num_steps=3 2>&1 | true
  code=${PIPESTATUS[0]}
  [[ $code -eq 0 ]] || fail "a run whose reader went away ended with $code"
  [[ -d unread/checkpoints/step-00000003 && -d full/checkpoints/step-00000003 ]] || fail "no checkpoint without a reader"
fi

# A damaged checkpoint is skipped with a word, and the older one is taken.
printf 'x' | dd of=run/checkpoints/step-00000043/rank-00000.h5 bs=1 seek=3000 conv=notrunc status=none
expect 0 train run.output=run train.num_steps=43
[[ $out == *"step-00000043"*"resuming from step 40"* ]] || fail "damage: $out"

# Two jobs on one folder: the second is refused.
train run.output=locked train.num_steps=100000 checkpoint.every=0 evaluate.every=0 > locked.out 2>&1 &
job=$!
until [[ -s locked/metrics.jsonl ]] || ! kill -0 $job 2>/dev/null; do :; done
refuse 2 train run.output=locked
expect_lines 1 "locked"
pkill -TERM -f "^$switchyard train small.yaml .*run.output=locked"
wait $job
[[ $? -eq 16 ]] || fail "SIGTERM: $(cat locked.out)"

# Mistakes are told at once and once, before anything is made.
refuse 2 train run.output=never train.global_batch=25
expect_lines 1 "global_batch"
[[ ! -e never ]] || fail "a refused run left a folder"
refuse 3 train run.output=never data.path=corpus.txt
expect_lines 1 "(data.path, command line: data.path=corpus.txt)"
refuse 6 train run.output=never data.path=none.h5
expect_lines 1 "make it with \`switchyard prepare TEXTS... --output none.h5\`"
refuse 4 train run.output=never checkpoint.resume=run/checkpoints/step-99999999
expect_lines 1 "checkpoint.resume: run/checkpoints/step-99999999: there is no such checkpoint"
refuse 2 train run.output=never model.vocab_size=100
expect_lines 1 "vocab_size = 100, but the tokenizer of corpus.h5 has 257 tokens"
[[ ! -e never ]] || fail "a refused run left a folder"
refuse 2 "$switchyard" eval run
expect_lines 1 "run: is a folder, not a configuration file; the configuration of that run is run/config.yaml"

# A loss that is not finite ends the run before the step changes anything, though the gradient is finite
# (a huge rate makes the logits of tokens that step 1 had not seen end near -2e38, those of others near 2e38).
expect 17 train run.output=huge train.num_steps=4 train.global_batch=12 train.micro_batch=1 parallel.expert=1 \
  experts.num_experts=0 model.sequence_length=4 model.hidden=16 model.num_layers=1 model.initial_std=1e-38 \
  model.embedding_std=1 optimizer.schedule=constant_decay optimizer.warmup_steps=0 optimizer.weight_decay=0 \
  optimizer.clip_norm=0 optimizer.epsilon=3e-3 optimizer.learning_rate=6.5e36 checkpoint.every=1
grep -q "step 2: loss inf and gradient norm [0-9.e+]* are not both finite; the weights were left" <<<"$err" || fail "overflow: $err"
[[ $(ls huge/checkpoints) == step-00000001 ]] || fail "checkpoints after an overflow: $(ls huge/checkpoints)"

# A checkpoint whose matrices have the same shapes but other heads is another model's.
refuse 4 train run.output=run train.num_steps=45 model.num_heads=8 model.num_kv_heads=4 model.head_dim=4
expect_lines 1 "was trained with model.num_heads 4, not 8"
expect 0 train run.output=run train.num_steps=45 experts.balance_weight=0.02
[[ $out == *"trained with experts.balance_weight 0.01; here it is 0.02"* ]] || fail "no word of the change: $out"

# So is one whose tokens mean other texts though every shape fits; what the run has kept stays. Other
# texts of the same tokens are only told.
if [[ $ranks -le 2 ]]; then
  tr a-z A-Z < corpus.txt > upper.txt
  expect 0 "$switchyard" prepare corpus.txt --output lower.h5 --train-tokenizer 310
  expect 0 "$switchyard" prepare upper.txt --output upper.h5 --train-tokenizer 310
  expect 0 "$switchyard" prepare upper.txt --output same.h5 --tokenizer lower.h5
  expect 0 train run.output=ids data.path=lower.h5 train.num_steps=2
  sha256sum ids/tokenizer.bin ids/config.yaml > before.sum
  refuse 4 train run.output=ids data.path=upper.h5 train.num_steps=3
  expect_lines 1 "was trained with another tokenizer"
  refuse 4 "$switchyard" eval small.yaml run.output=ids data.path=upper.h5
  sha256sum --quiet -c before.sum || fail "a refused run changed what the run has kept"
  expect 0 train run.output=ids data.path=same.h5 train.num_steps=3
  [[ $out == *"trained on another corpus: lower.h5 (checksums: train "*"here it is same.h5 (train "* ]] || fail "no word of other data: $out"
fi
finish
