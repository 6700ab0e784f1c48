#!/usr/bin/env bash
# What README.md and docs/activations.md tell a newcomer about long sequences, done: the plan of
# configs/long_context.yaml, its training on ranks that share a sequence (made small), the curve of one
# rank, a capture read by the page's own lines.
#   long_context_test.sh MPIEXEC SWITCHYARD RANKS SOURCE_FOLDER
set -uo pipefail
mpiexec=$1 switchyard=$2 ranks=$3 source=$4
source "$(dirname "$0")/../launch/expect.sh"
cd "$work" || exit 1
mkdir -p runs/corpora
for ((i = 0; i < 400; ++i)); do
  printf 'Sentence %d is longer than that before it by %d words, and %d of them are rare.\n' "$i" $((i * 7 % 11)) $((i * i % 13))
  ((i % 9 == 0)) && printf '%%\n'
done > books.txt
expect 0 "$switchyard" prepare books.txt --output runs/corpora/books.h5

# The command of README.md, as it stands there.
plan=$(grep -oE 'switchyard plan configs/long_context.yaml [^#]*' "$source/README.md")
[[ -n $plan ]] || fail "README.md has no plan of configs/long_context.yaml"
read -ra words <<<"${plan#switchyard }"
words[1]=$source/${words[1]}
expect 0 "$switchyard" "${words[@]}"
for text in "Sharing a sequence of 131072 positions over 8 ranks" "ring 8" "ring 4 x ulysses 2" "all_gather 8" "hidden fwd"; do
  [[ $out == *"$text"* ]] || fail "the plan does not tell '$text': $out"
done

# A ring although sequences are short: it is what the long ones take.
small=(parallel.context.method=ring model.sequence_length=513 model.hidden=32 model.num_layers=8 experts.intermediate=32 parallel.context.pad=true
  run.precision=fp32 train.num_steps=12 checkpoint.every=0)
train() {
  local num=$1
  shift
  expect 0 "$mpiexec" -n "$num" "$switchyard" train "$source/configs/long_context.yaml" "${small[@]}" \
    parallel.context.ranks="$num" parallel.expert="$num" "$@"
}
train "$ranks" run.output=runs/tiny "capture.steps=[10]" "capture.layers=[0, 7]"
train 1 run.output=runs/one
figures() { grep '"loss"' "$1/metrics.jsonl" | sed -E 's/.*"loss": ([^,]+),.*"grad_norm": ([^,]+),.*/\1 \2/'; }
[[ $(figures runs/one | wc -l) -eq 12 ]] || fail "not 12 steps: $(cat runs/one/metrics.jsonl)"
paste <(figures runs/tiny) <(figures runs/one) | awk '
  function off(a, b) { d = (a - b) / b; return d > 1e-5 || d < -1e-5 }
  NF != 4 || off($1, $3) || off($2, $4) { print; bad = 1 } END { exit bad }' || fail "$ranks ranks and one differ"

page=$(awk '/^```python/ { inside = 1; next } /^```/ { inside = 0 } inside' "$source/docs/activations.md")
[[ $(wc -l <<<"$page") -eq 5 ]] || fail "docs/activations.md reads a capture in other than five lines: $page"
if /usr/bin/python3 -c 'import h5py' 2>/dev/null; then
  expect 0 /usr/bin/python3 -c "$page"
  [[ $out == "18 "* ]] || fail "the page's lines print: $out"  # step 10 of 2 sequences a step begins with number 18
else
  echo "NOT TESTED: docs/activations.md's lines need Debian's python3-h5py"
fi
finish
