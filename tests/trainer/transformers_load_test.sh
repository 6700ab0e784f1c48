#!/usr/bin/env bash
# Golden models of all families go in and out by the program itself; Hugging Face's code loads what came
# out: its tensors are those of the golden model to the bit, and its logits the golden ones. Not tested where
# there is no python3 with transformers (SWITCHYARD_PYTHON names another python3).
#   transformers_load_test.sh SWITCHYARD GOLDEN_FOLDER
set -euo pipefail
switchyard=$1
golden=$2
python=${SWITCHYARD_PYTHON:-python3}
"$python" -c 'import torch, transformers, safetensors' 2>/dev/null || {
  echo "NOT TESTED: $python has no torch, transformers and safetensors"
  exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for model in "$golden"/*/; do
  name=$(basename "$model")
  "$switchyard" import "$model" --output "$work/run/$name" >/dev/null 2>"$work/err" || { cat "$work/err"; exit 1; }
  "$switchyard" export "$work/run/$name" --output "$work/out/$name" --dtype f32 --shard-size 9KB >/dev/null 2>"$work/err" ||
    { cat "$work/err"; exit 1; }
done
"$python" "$(dirname "$0")/transformers_load.py" "$work/out" "$golden"
