# Sourced, behind launch/expect.sh: what the tests of whole runs train on, in the current folder.
#   prepare_corpus SWITCHYARD   corpus.txt and corpus.h5: 400 short texts, the tokenizer bytes
#   write_config FILE           a model whose step takes milliseconds; its 5 experts divide evenly over no
#                               number of ranks. The test's own sections (train, ...) come from stdin.
prepare_corpus() {
  local i
  for ((i = 0; i < 400; ++i)); do
    printf 'The %d tokens of sequence %d passed the gate, and expert %d of %d took them.\n%%\n' \
      $((i * 7 % 97)) "$i" $((i % 5)) 5
  done > corpus.txt
  expect 0 "$1" prepare corpus.txt --output corpus.h5
}

write_config() {
  cat > "$1" <<'YAML'
run: {output: run, precision: fp32}
data: {path: corpus.h5}
model: {hidden: 32, num_layers: 2, num_heads: 4, num_kv_heads: 2, sequence_length: 32}
experts: {num_experts: 5, top_k: 2, intermediate: 32}
YAML
  cat >> "$1"
}
