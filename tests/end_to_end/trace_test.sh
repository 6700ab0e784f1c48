#!/usr/bin/env bash
# Time lines of chosen steps and event files for TensorBoard: readable by what is written from their formats,
# true to metrics.jsonl, without an effect on the training, and absent unless asked for.
#   trace_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"
readers=$(realpath "$(dirname "${BASH_SOURCE[0]}")")

write_config small.yaml <<'YAML'
train: {num_steps: 9, global_batch: 12, micro_batch: 2}
optimizer: {learning_rate: 0.003, warmup_steps: 4, min_learning_rate: 0.003}
evaluate: {every: 4, num_sequences: 8}
checkpoint: {every: 6}
YAML
prepare_corpus "$switchyard"
losses() { sed -nE 's/^(\{"step": [0-9]+, "loss": [^,]+).*"grad_norm": ([^,]+),.*/\1 \2/p' "$1/metrics.jsonl"; }

expect 0 on_ranks train small.yaml parallel.expert="$ranks" run.output=plain
[[ ! -e plain/traces && ! -e plain/events ]] || fail "traces or events that nobody asked for: $(ls plain)"
expect 0 on_ranks train small.yaml parallel.expert="$ranks" run.output=run "profile.steps=[2..3, 5]" metrics.tensorboard=true
[[ $out == *"traced steps in run/traces/steps-2-3.json"*"traced steps in run/traces/step-5.json"* ]] || fail "no word of traces: $out"
[[ $(ls run/traces | tr '\n' ' ') == "step-5.json steps-2-3.json " ]] || fail "traces: $(ls run/traces)"
[[ $(losses run) == "$(losses plain)" && -n $(losses run) ]] || fail "a trace changes the losses: $(diff <(losses run) <(losses plain))"
# A start that goes on from step 6, after which steps were taken: they count once.
rm -r run/checkpoints/step-00000009
expect 0 on_ranks train small.yaml parallel.expert="$ranks" run.output=run metrics.tensorboard=true train.num_steps=11 profile.steps=11
[[ $out == *"resuming from step 6"*"run/traces/step-11.json"* ]] || fail "not resumed, or the last step not traced: $out"
expect 2 "$switchyard" config small.yaml profile.steps=12..10
expect_lines 1 "profile.steps=12..10: a range goes upwards: 10..12"

expect 0 "$switchyard" report run --output page.html
if [[ -x /usr/bin/python3 ]]; then
  for python in /usr/bin/python3 python3; do  # an own one may have TensorBoard and Perfetto
    command -v "$python" >/dev/null || continue
    expect 0 "$python" "$readers/trace_reader.py" run/traces/steps-2-3.json "$ranks" 2 3
    expect 0 "$python" "$readers/trace_reader.py" run/traces/step-11.json "$ranks" 11 11
    expect 0 "$python" "$readers/event_reader.py" run/events run/metrics.jsonl
    [[ $out == "2 files"* ]] || fail "event files: $out"
  done
  ((ranks == 1)) || expect 0 /usr/bin/python3 "$readers/report_page.py" page.html exchange-bandwidth
else
  echo "NOT TESTED: traces and event files need Debian's python3 to be read"
fi
finish
