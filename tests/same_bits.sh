#!/usr/bin/env bash
# Whether two states of the program compute the same bits: each trains small models of every kind, on 1 to 4
# ranks, in both precisions, and the losses and gradient norms of every step are compared as printed, which is
# exact. Prints a table; ends with 1 if anything differs. For changes that are to change nothing; no part of
# tests/run.sh.
#   tests/same_bits.sh [--only REGEX] [--steps N] OLD [NEW]
# OLD, NEW: a built tree (build/release/switchyard in it), a program, or a commit, which is built in a tree of its
# own under build/same_bits/. NEW: this tree if left out. REGEX: of lines like "ring fp32 2".
set -uo pipefail
here=$(realpath "$(dirname "$0")")
root=$(dirname "$here")
usage() { sed -n '2,9s/^# \{0,1\}//p' "$here/same_bits.sh"; }
only=. steps=4  # at least 2: a step of warming up, one of decay
while [[ ${1:-} == -* ]]; do
  case $1 in
    --only) only=${2:?}; shift 2 ;;
    --steps) steps=${2:?}; shift 2 ;;
    *) usage; [[ $1 == -h || $1 == --help ]] && exit 0; exit 2 ;;
  esac
done
[[ $# -eq 1 || $# -eq 2 ]] || { usage >&2; exit 2; }

# program_of TREE_PROGRAM_OR_COMMIT: the program's path, built if need be.
program_of() {
  local commit tree
  if [[ -f $1 && -x $1 ]]; then
    realpath "$1"
  elif [[ -d $1 ]]; then
    [[ -x $1/build/release/switchyard ]] || { echo "same_bits: $1 is not built: launch/build.sh release" >&2; return 1; }
    realpath "$1/build/release/switchyard"
  elif commit=$(git -C "$root" rev-parse --verify --quiet --short=12 "$1^{commit}"); then
    tree=$root/build/same_bits/$commit
    [[ -d $tree ]] || git -C "$root" worktree add --quiet --detach "$tree" "$commit" >&2 || return 1
    "$tree/launch/build.sh" release switchyard >&2 || return 1
    echo "$tree/build/release/switchyard"
  else
    echo "same_bits: $1 is neither a tree, a program nor a commit" >&2
    return 1
  fi
}
old=$(program_of "$1") || exit 2
new=$(program_of "${2:-$root}") || exit 2

source "$here/launch/expect.sh"
source "$here/support/small_run.sh"
cd "$work" || exit 2
prepare_corpus "$old"
write_config small.yaml <<'YAML'
train: {global_batch: 24, micro_batch: 2}
optimizer: {learning_rate: 0.003, warmup_steps: 1}
checkpoint: {resume: never}
YAML

# A kind of model: its name, the numbers of ranks, what it has that the small model has not. RANKS stands for
# the number of ranks. The small model: 5 experts of top 2 in both layers, grouped queries, several micro-steps.
kinds() {
  cat <<'KINDS'
moe            1 2 3 4  parallel.expert=1
expert         2 3 4    parallel.expert=RANKS
expert2        4        parallel.expert=2
dense          1 2 4    experts.num_experts=0 model.dense_intermediate=40
varied         1 2 4    parallel.expert=RANKS model.num_layers=3 model.num_kv_heads=1 model.tie_embeddings=true model.embedding_std=0.5 model.dense_intermediate=40 model.embedding_dropout=0.1 model.residual_dropout=0.1 experts.num_experts=3 experts.top_k=1 experts.normalize_top_k=false experts.every=2 experts.balance_weight=0.05 experts.dropout=0.1 optimizer.schedule=constant_decay optimizer.decay_steps=1 optimizer.clip_norm=0.1
wide           1 2      model.hidden=128 model.num_layers=1 model.sequence_length=256 experts.num_experts=8 experts.intermediate=192 train.global_batch=8 train.micro_batch=0 parallel.expert=RANKS
long           1        model.num_layers=1 model.sequence_length=2304 train.global_batch=1 train.micro_batch=0
windows        1 2      model.attention=[{kind:\ window,\ window:\ 5,\ sinks:\ 1},{kind:\ full,\ sinks:\ 2}]
documents      1 2      data.document_mask=true data.restart_positions=true model.embedding_std=0.5
yarn           1        model.rope_scaling.kind=yarn model.rope_scaling.factor=4 model.rope_scaling.original_length=8
recompute      1 2      activations.policy=recompute
spill          1 2      activations.policy=spill model.num_layers=4
spill_file     1 2      activations.policy=spill activations.store=hdf5 model.num_layers=4
ring           2 3 4    parallel.context.ranks=RANKS parallel.context.ring=RANKS parallel.context.method=ring parallel.context.pad=true
contiguous     2 4      parallel.context.ranks=RANKS parallel.context.ring=RANKS parallel.context.method=ring parallel.context.layout=contiguous
ring_thread    2        parallel.context.ranks=2 parallel.context.ring=2 parallel.context.method=ring parallel.context.progress=thread
gather         2 3 4    parallel.context.ranks=RANKS parallel.context.ring=RANKS parallel.context.method=all_gather parallel.context.pad=true
ulysses        2 4      parallel.context.ranks=RANKS parallel.context.ulysses=RANKS parallel.context.ring=1 model.num_kv_heads=4
ring_ulysses   4        parallel.context.ranks=4 parallel.context.ring=2 parallel.context.ulysses=2 parallel.context.method=ring
ring_windows   2 3      parallel.context.ranks=RANKS parallel.context.ring=RANKS parallel.context.method=ring parallel.context.pad=true model.attention=[{kind:\ window,\ window:\ 5,\ sinks:\ 1},{kind:\ full,\ sinks:\ 2}]
ring_documents 2 4      parallel.context.ranks=RANKS parallel.context.ring=RANKS parallel.context.method=ring parallel.expert=RANKS data.document_mask=true data.restart_positions=true model.embedding_std=0.5
ring_spill     2        parallel.context.ranks=2 parallel.context.ring=2 parallel.context.method=ring parallel.expert=2 activations.policy=spill model.num_layers=4
KINDS
}

# train PROGRAM FOLDER RANKS PRECISION OVERRIDES...: figures of the run in FOLDER.figures.
train() {
  local program=$1 folder=$2 ranks=$3 precision=$4
  shift 4
  # Versions before that key took the mean.
  "$program" config small.yaml experts.balance_reduction=mean >/dev/null 2>&1 && set -- "$@" experts.balance_reduction=mean
  # One rank shares its work out between threads, so that what a thread takes is tested, too.
  OMP_NUM_THREADS=$((ranks == 1 ? 2 : 1)) "$here/support/mpiexec.sh" -n "$ranks" "$program" train small.yaml \
    run.output="$folder" run.precision="$precision" train.num_steps="$steps" "$@" </dev/null >"$folder.out" 2>&1 || {
    fail "$(basename "$folder") with $program: $(grep -m1 '^switchyard: ' "$folder.out" || tail -n 1 "$folder.out")"
    return 1
  }
  grep -E '"step": [0-9]+, "loss"' "$folder/metrics.jsonl" |
    grep -oE '"(step|loss|cross_entropy|balance_loss|z_loss|grad_norm)": [^,}]*' >"$folder.figures"
  [[ $(grep -c grad_norm "$folder.figures") -eq $steps ]] || { fail "$folder: not $steps steps"; return 1; }
  rm -rf "$folder"
}

printf '%-15s %-4s %5s  %-24s %-24s %s\n' configuration type ranks 'last loss' 'last gradient norm' "$steps steps"
compared=0 different=0
while read -r line; do
  read -r name line <<<"$line"
  counts=()
  while [[ $line =~ ^([0-9]+)\ +(.*)$ ]]; do counts+=("${BASH_REMATCH[1]}") line=${BASH_REMATCH[2]}; done
  for ranks in "${counts[@]}"; do
    for precision in fp32 bf16; do
      grep -qE -- "$only" <<<"$name $precision $ranks" || continue
      overrides=()
      while IFS= read -r word; do overrides+=("$word"); done < <(xargs -n 1 printf '%s\n' <<<"${line//RANKS/$ranks}")
      run=$name.$precision.$ranks
      train "$old" "old.$run" "$ranks" "$precision" "${overrides[@]}" || continue
      train "$new" "new.$run" "$ranks" "$precision" "${overrides[@]}" || continue
      verdict=same
      compared=$((compared + 1))
      cmp -s "old.$run.figures" "new.$run.figures" || {
        verdict="DIFFERENT from step $(paste "old.$run.figures" "new.$run.figures" |
          awk -F'\t' '$1 ~ /"step"/ { split($1, s, " ") } $1 != $2 { print s[2]; exit }')"
        different=$((different + 1))
      }
      last() { grep "\"$1\"" "new.$run.figures" | tail -n 1 | cut -d' ' -f2; }
      printf '%-15s %-4s %5s  %-24s %-24s %s\n' "$name" "$precision" "$ranks" "$(last loss)" "$(last grad_norm)" "$verdict"
    done
  done
done < <(kinds)
echo "$compared configurations compared, $different differ, $failures failures"
[[ $compared -gt 0 && $different -eq 0 && $failures -eq 0 ]]
