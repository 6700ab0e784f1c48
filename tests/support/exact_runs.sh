# Sourced, behind launch/expect.sh: runs of exact mode on many layouts, in the current folder. $mpiexec and
# $switchyard are the programs.
#   prepare_exact          corpus.h5 and exact.yaml: two layers, six experts, and an embedding so small that tokens
#                          are near a tie of their experts in every step; whatever is summed in another order takes
#                          another expert soon. 24 sequences a step and parts of 48 divide over 1, 2, 3, 4, 6, 8 ranks.
#   layouts RANKS          every legal "data context expert", a line each
#   features_of NAME       (one of model_features) the overrides of a feature of the model, in the array `overrides`
#   exact_train FOLDER RANKS DATA CONTEXT EXPERT OVERRIDES...    trains, or fails
#   compare_runs FOLDER REFERENCE    curves and the last checkpoint's digest; fails with the first difference
#   draw N                 sets $drawn to one of 0 ... N - 1: a fixed sequence, from $seed on
source "$(dirname "${BASH_SOURCE[0]}")/small_run.sh"
model_features=(plain dropout documents windows tied dense top1 uneven kv_heads shared biased moving bf16)
# One of them in a model: kinds of routers.
router_features=(sigmoid noisy gshard sinkhorn base expert_choice latent)
num_steps=${num_steps:-50}
seed=${seed:-15}

prepare_exact() {
  prepare_corpus "$switchyard"
  write_config exact.yaml <<'YAML'
numerics: {exact: true, max_context: 24}
train: {global_batch: 24}
optimizer: {learning_rate: 2.0e-3, schedule: constant_decay, warmup_steps: 4}
evaluate: {every: 25, num_sequences: 9}
checkpoint: {every: 0}
YAML
}
# What the small model has otherwise.
exact_model=(model.sequence_length=48 model.embedding_std=0.02 experts.num_experts=6)

layouts() {
  local context expert
  for ((context = 1; context <= $1; ++context)); do
    (($1 % context == 0)) || continue
    for ((expert = 1; expert <= $1; ++expert)); do
      (($1 % expert)) || echo "$(($1 / context)) $context $expert"
    done
  done
}

features_of() {
  case $1 in
    plain) overrides=() ;;
    dropout) overrides=(model.embedding_dropout=0.1 model.residual_dropout=0.1 experts.dropout=0.1) ;;
    documents) overrides=(data.document_mask=true data.restart_positions=true) ;;
    windows) overrides=("model.mixer=[{kind: window, window: 11, sinks: 1}, {kind: full, sinks: 2}]") ;;
    tied) overrides=(model.tie_embeddings=true) ;;
    dense) overrides=(experts.every=2 model.dense_intermediate=40) ;;
    top1) overrides=(experts.top_k=1 experts.normalize_top_k=false experts.balance_weight=0.05) ;;
    uneven) overrides=(experts.num_experts=5) ;;
    shared) overrides=(experts.shared.number=1 experts.shared.gate=sigmoid) ;;
    sigmoid) overrides=(experts.router.score=sigmoid experts.router.scale=2.5 experts.router.groups=2 experts.router.group_score=best_two
      experts.num_experts=6 experts.bias_rate=0.001) ;;
    noisy) overrides=(experts.router.kind=noisy_top_k experts.router.jitter=0.01) ;;
    gshard) overrides=(experts.router.kind=gshard experts.top_k=2) ;;
    sinkhorn | base | expert_choice) overrides=(experts.router.kind="$1" experts.allow_future=true) ;;
    latent) overrides=(experts.latent=16) ;;
    biased) overrides=(experts.bias_rate=0.001) ;;
    moving) overrides=(experts.placement.every=7 experts.placement.replicas=2 experts.placement.least_gain=0) ;;
    kv_heads) overrides=(model.num_heads=8 model.num_kv_heads=4) ;;
    bf16) overrides=(run.precision=bf16) ;;
    *) echo "exact_runs: no feature $1" >&2; exit 2 ;;
  esac
}

# overrides_of LINES: the overrides that are lines of a text, in the array `overrides`.
overrides_of() {
  overrides=()
  [[ -z $1 ]] || mapfile -t overrides <<<"$1"
}

draw() {
  seed=$((seed * 6364136223846793005 + 1442695040888963407))  # a linear congruence of Knuth's
  drawn=$((((seed >> 33) & 0x7fffffff) % $1))
}

exact_train() {
  local folder=$1 ranks=$2 data=$3 context=$4 expert=$5
  shift 5
  "$mpiexec" -n "$ranks" "$switchyard" train exact.yaml run.output="$folder" run.threads=1 train.num_steps="$num_steps" \
    parallel.data="$data" parallel.context.ranks="$context" parallel.expert="$expert" "${exact_model[@]}" "$@" \
    </dev/null >"$folder.out" 2>&1 && return
  fail "$folder: $(grep -m1 '^switchyard: ' "$folder.out" || tail -n 3 "$folder.out")"
  return 1
}

# Every number of a run that no layout may change, to the last digit.
curve() {
  local names='step|loss|cross_entropy|balance_loss|z_loss|grad_norm|learning_rate|num_tokens|load_max_over_mean|dropped_fraction|load_by_layer|validation_loss'
  grep -v '"event"' "$1/metrics.jsonl" | grep -oE "\"($names)\": (\[[^]]*\]|[^,}]*)" |
    awk '/^"step"/ { step = $2; next } { print "step " step ": " $0 }'
}

compare_runs() {
  local first digest wanted
  first=$(diff <(curve "$2") <(curve "$1") | grep '^[<>]' | sort -s -n -k3 | sed -n 1,4p)
  digest=$("$switchyard" checkpoint show "$1" --digest) wanted=$("$switchyard" checkpoint show "$2" --digest)
  [[ $(curve "$2" | grep -c grad_norm) -eq $num_steps ]] || { fail "$2 has not $num_steps steps"; return 1; }
  if [[ -n $first ]]; then
    fail "$1 is not $2; the first difference:"$'\n'"$first"
  elif [[ -z $digest || ${digest%% *} != "${wanted%% *}" ]]; then
    fail "$1 has the curve of $2 but another checkpoint: $("$switchyard" checkpoint diff "$2" "$1" | head -n 3)"
  else
    return 0
  fi
  return 1
}
