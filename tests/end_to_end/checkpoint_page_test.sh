#!/usr/bin/env bash
# What docs/checkpoints.md says: its lines of Python read a checkpoint that three ranks wrote, and a model in
# numpy made of what it says gives the program's validation loss and its tokens, also beyond the trained length.
#   checkpoint_page_test.sh MPIEXEC SWITCHYARD SOURCE_FOLDER
set -uo pipefail
mpiexec=$1 switchyard=$2 source=$3
source "$(dirname "$0")/../launch/expect.sh"
source "$(dirname "$0")/../support/small_run.sh"
cd "$work" || exit 1

prepare_corpus "$switchyard"
write_config small.yaml <<'YAML'
train: {num_steps: 40, global_batch: 6}
optimizer: {learning_rate: 0.003, warmup_steps: 4}
YAML
shape=(model.num_layers=3 model.dense_intermediate=40 model.rope_base=500 experts.every=2 experts.intermediate=24
  "model.mixer=[{kind: window, window: 20, sinks: 2}, {kind: window, window: 7}]")
expect 0 "$mpiexec" -n 3 "$switchyard" train small.yaml parallel.expert=3 "${shape[@]}"
checkpoint=run/checkpoints/step-00000040

page=$source/docs/checkpoints.md
lines=$(awk '/^```python/ { inside = 1; next } /^```/ { inside = 0 } inside' "$page")
[[ $(wc -l <<<"$lines") -eq 5 ]] || fail "docs/checkpoints.md reads a checkpoint in other than five lines: $lines"
names=$("$switchyard" checkpoint show run | sed -nE 's/^([a-z_]+[a-z0-9_.]*)  .*\[.*$/\1/p' | sed -E 's/layers\.[0-9]+/layers.L/' | sort -u)
[[ $(wc -l <<<"$names") -eq 13 ]] || fail "not the 13 kinds of tensors: $names"
while read -r name; do
  grep -qF "| \`$name\` |" "$page" || fail "docs/checkpoints.md does not have $name"
done <<<"$names"

if ! /usr/bin/python3 -c 'import h5py' 2>/dev/null; then
  echo "NOT TESTED: docs/checkpoints.md's lines need Debian's python3-h5py"
  finish
  exit 0
fi
expect 0 /usr/bin/python3 -c "$lines"
[[ $out == "40 (32, 32) (16, 32) (16, 32)" ]] || fail "the page's lines print: $out"

expect 0 "$switchyard" eval small.yaml parallel.expert=1 train.global_batch=1 "${shape[@]}"
loss=$(sed -nE 's/.*validation loss ([0-9.]+).*/\1/p' <<<"$out")
num_tokens=$(sed -nE 's/.*tokens ([0-9]+).*/\1/p' <<<"$out")
expect 0 "$switchyard" generate run --prompt "The 1" --temperature 0 --tokens 90 --ids
cp "$work/out" tokens.ids
expect 0 /usr/bin/python3 "$source/tests/end_to_end/checkpoint_forward.py" $checkpoint corpus.h5 "$loss" "$num_tokens" tokens.ids
echo "$out"

# The ranges that manifest.json gives for the files of the ranks are those that the page describes.
expect 0 /usr/bin/python3 - $checkpoint <<'PYTHON'
import json, sys, h5py, numpy
folder = sys.argv[1]
manifest = json.load(open(folder + "/manifest.json"))
whole = h5py.File(folder + "/checkpoint.h5")
for group in "parameters", "moment1", "moment2":
    for tensor in manifest["tensors"]:
        flat = []
        for rank, begin, numel in tensor["ranges"]:
            part = h5py.File(f"{folder}/rank-{rank:05}.h5")[f"{group}/{tensor['name']}"]
            assert part.shape == (numel,) and part.attrs["global_begin"] == begin == sum(map(len, flat)), tensor
            flat.append(part[:])
        data = whole[f"{group}/{tensor['name']}"]
        assert data.dtype == "<f4" and (numpy.concatenate(flat).reshape(tensor["shape"]) == data[:]).all(), tensor
PYTHON
finish
