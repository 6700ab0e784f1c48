// The keys, a section a function. The order is that of the document and of `switchyard config`.
#include <utility>

#include "launch/schema.hpp"

namespace switchyard {
namespace {

// field<&Config::model, &ModelConfig::hidden>(): how to reach a field in any Config.
template <auto section, auto member>
Field field() {
  using Value = std::remove_cvref_t<decltype((std::declval<Config&>().*section).*member)>;
  using Access = Value& (*)(Config&);
  return static_cast<Access>([](Config& config) -> Value& { return (config.*section).*member; });
}

constexpr double unlimited = std::numeric_limits<double>::infinity();
constexpr double million = 1e6;
constexpr double most_tokens = 2147483647;  // token numbers are 32-bit

Range from(double least, double most = unlimited) {
  return {.least = least, .most = most};
}
Range above(double least) {
  return {.least = least, .least_is_open = true};
}
// A share or probability: 0 is legal, 1 is not.
Range rate() {
  return {.least = 0, .most = 1, .most_is_open = true};
}

void add_run(std::vector<Key>& keys) {
  using C = RunConfig;
  constexpr auto s = &Config::run;
  keys.push_back({.section = "run",
                  .name = "output",
                  .field = field<s, &C::output>(),
                  .unit = "path",
                  .description = "Folder of the run: effective configuration, metrics, logs and "
                                 "checkpoints. Created if it does not exist.",
                  .is_required = true});
  keys.push_back(
      {.section = "run",
       .name = "seed",
       .field = field<s, &C::seed>(),
       .range = from(0),
       .description = "Seed of all random numbers: weights, order of the data, dropout."});
  keys.push_back({.section = "run",
                  .name = "precision",
                  .field = field<s, &C::precision>(),
                  .choices = {"fp32", "bf16"},
                  .description = "Type of activations and of weights in products. Master weights, "
                                 "gradients, reductions, router and loss are fp32 in both."});
  keys.push_back({.section = "run",
                  .name = "device",
                  .field = field<s, &C::device>(),
                  .choices = {"auto", "cpu", "cuda"},
                  .description = "Where the run computes; `auto` takes the best device that this "
                                 "build has. `cuda` is refused by builds without it."});
  keys.push_back({.section = "run",
                  .name = "threads",
                  .field = field<s, &C::threads>(),
                  .unit = "threads",
                  .range = from(0, 4096),
                  .description = "OpenMP threads of a rank; 0: OMP_NUM_THREADS, else the cores of "
                                 "the host divided by its ranks."});
}

void add_data(std::vector<Key>& keys) {
  using C = DataConfig;
  constexpr auto s = &Config::data;
  keys.push_back({.section = "data",
                  .name = "path",
                  .field = field<s, &C::path>(),
                  .unit = "path",
                  .description = "Token file written by `switchyard prepare`.",
                  .is_required = true});
}

void add_model(std::vector<Key>& keys) {
  using C = ModelConfig;
  constexpr auto s = &Config::model;
  keys.push_back({.section = "model",
                  .name = "vocab_size",
                  .field = field<s, &C::vocab_size>(),
                  .unit = "tokens",
                  .range = from(0, most_tokens),
                  .description = "Rows of the embedding; 0: the tokenizer's. A larger number than "
                                 "the tokenizer's is padding."});
  keys.push_back({.section = "model",
                  .name = "hidden",
                  .field = field<s, &C::hidden>(),
                  .unit = "elements",
                  .range = from(1, million),
                  .description = "Width of the residual stream."});
  keys.push_back({.section = "model",
                  .name = "num_layers",
                  .field = field<s, &C::num_layers>(),
                  .unit = "layers",
                  .range = from(1, 10'000),
                  .description = "Blocks of attention and feed-forward."});
  keys.push_back({.section = "model",
                  .name = "num_heads",
                  .field = field<s, &C::num_heads>(),
                  .unit = "heads",
                  .range = from(1, 10'000),
                  .description = "Query heads of attention."});
  keys.push_back({.section = "model",
                  .name = "num_kv_heads",
                  .field = field<s, &C::num_kv_heads>(),
                  .unit = "heads",
                  .range = from(1, 10'000),
                  .description =
                      "Key and value heads; divides `num_heads`. Equal to it: multi-head "
                      "attention; less: grouped-query attention; 1: multi-query."});
  keys.push_back({.section = "model",
                  .name = "head_dim",
                  .field = field<s, &C::head_dim>(),
                  .unit = "elements",
                  .range = from(0, 10'000),
                  .description = "Width of a head, an even number; 0: `hidden` / `num_heads`."});
  keys.push_back({.section = "model",
                  .name = "sequence_length",
                  .field = field<s, &C::sequence_length>(),
                  .unit = "tokens",
                  .range = from(1, most_tokens),
                  .description = "Tokens of a training sequence."});
  keys.push_back({.section = "model",
                  .name = "rope_base",
                  .field = field<s, &C::rope_base>(),
                  .range = above(1),
                  .description = "Base of the rotary position embedding."});
  keys.push_back({.section = "model",
                  .name = "tie_embeddings",
                  .field = field<s, &C::tie_embeddings>(),
                  .description = "Whether the output head uses the embedding's weights."});
  keys.push_back({.section = "model",
                  .name = "norm_epsilon",
                  .field = field<s, &C::norm_epsilon>(),
                  .range = above(0),
                  .description = "Added to the mean square in RMSNorm, against division by zero."});
  keys.push_back({.section = "model",
                  .name = "dense_intermediate",
                  .field = field<s, &C::dense_intermediate>(),
                  .unit = "elements",
                  .range = from(1, million),
                  .description = "Width inside the SwiGLU of layers without experts."});
  keys.push_back({.section = "model",
                  .name = "embedding_dropout",
                  .field = field<s, &C::embedding_dropout>(),
                  .range = rate(),
                  .description = "Share of embedding elements dropped while training."});
  keys.push_back({.section = "model",
                  .name = "residual_dropout",
                  .field = field<s, &C::residual_dropout>(),
                  .range = rate(),
                  .description = "Share dropped of what attention and feed-forward add to the "
                                 "residual stream while training."});
  keys.push_back({.section = "model",
                  .name = "initial_std",
                  .field = field<s, &C::initial_std>(),
                  .range = above(0),
                  .description =
                      "Standard deviation of initial weights; of those that write to the "
                      "residual stream divided by sqrt(2 `num_layers`)."});
  keys.push_back({.section = "model",
                  .name = "embedding_std",
                  .field = field<s, &C::embedding_std>(),
                  .range = from(0),
                  .description =
                      "Standard deviation of the initial embedding; 0: `initial_std`. With 1 the tokens "
                      "of a sequence stay apart in an untrained model, so that its router spreads "
                      "them over the experts; the loss then falls more slowly at first."});
}

void add_experts(std::vector<Key>& keys) {
  using C = ExpertsConfig;
  constexpr auto s = &Config::experts;
  keys.push_back({.section = "experts",
                  .name = "num_experts",
                  .field = field<s, &C::num_experts>(),
                  .unit = "experts",
                  .range = from(0, million),
                  .description = "Experts of a layer, over all ranks; 0: a dense model."});
  keys.push_back({.section = "experts",
                  .name = "top_k",
                  .field = field<s, &C::top_k>(),
                  .unit = "experts",
                  .range = from(1, 1'000),
                  .description = "Experts that a token is sent to; at most `num_experts`."});
  keys.push_back({.section = "experts",
                  .name = "intermediate",
                  .field = field<s, &C::intermediate>(),
                  .unit = "elements",
                  .range = from(1, million),
                  .description = "Width inside one expert's SwiGLU."});
  keys.push_back({.section = "experts",
                  .name = "every",
                  .field = field<s, &C::every>(),
                  .unit = "layers",
                  .range = from(0, 10'000),
                  .description = "Every how many layers one has experts: 1 all, 2 the second, "
                                 "fourth, ...; 0: no layer has."});
  keys.push_back({.section = "experts",
                  .name = "balance_weight",
                  .field = field<s, &C::balance_weight>(),
                  .range = from(0),
                  .description = "Weight of the load-balancing loss; 0: off."});
  keys.push_back({.section = "experts",
                  .name = "z_weight",
                  .field = field<s, &C::z_weight>(),
                  .range = from(0),
                  .description = "Weight of the z-loss, which keeps router logits small; 0: off."});
  keys.push_back(
      {.section = "experts",
       .name = "normalize_top_k",
       .field = field<s, &C::normalize_top_k>(),
       .description = "Whether the weights of the chosen experts are scaled to sum to 1."});
  keys.push_back({.section = "experts",
                  .name = "balance_scope",
                  .field = field<s, &C::balance_scope>(),
                  .choices = {"sequence"},
                  .description = "Over which tokens the balance loss takes its means. `sequence`: "
                                 "within each sequence, which no layout and no accumulation can "
                                 "change."});
  keys.push_back({.section = "experts",
                  .name = "dropout",
                  .field = field<s, &C::dropout>(),
                  .range = rate(),
                  .description = "Share of expert output elements dropped while training."});
}

void add_parallel(std::vector<Key>& keys) {
  using C = ParallelConfig;
  constexpr auto s = &Config::parallel;
  keys.push_back({.section = "parallel",
                  .name = "data",
                  .field = field<s, &C::data>(),
                  .unit = "ranks",
                  .range = from(0, million),
                  .description = "Ranks that hold different sequences; 0: all that are left."});
  keys.push_back({.section = "parallel",
                  .name = "context",
                  .field = field<s, &C::context>(),
                  .unit = "ranks",
                  .range = from(1, 1),
                  .description = "Ranks that share a sequence; only 1 for now."});
  keys.push_back({.section = "parallel",
                  .name = "expert",
                  .field = field<s, &C::expert>(),
                  .unit = "ranks",
                  .range = from(1, million),
                  .description = "Ranks that the experts of a layer are sharded over; divides "
                                 "data x context."});
  keys.push_back({.section = "parallel",
                  .name = "bucket_megabytes",
                  .field = field<s, &C::bucket_megabytes>(),
                  .unit = "MiB",
                  .range = from(1, 16'384),
                  .description = "Gradients that one exchange reduces. Smaller starts earlier, "
                                 "larger has fewer exchanges; results do not depend on it."});
}

void add_train(std::vector<Key>& keys) {
  using C = TrainConfig;
  constexpr auto s = &Config::train;
  keys.push_back({.section = "train",
                  .name = "num_steps",
                  .field = field<s, &C::num_steps>(),
                  .unit = "steps",
                  .range = from(1, 1e12),
                  .description = "Optimizer steps of the run, those before a resume included."});
  keys.push_back({.section = "train",
                  .name = "global_batch",
                  .field = field<s, &C::global_batch>(),
                  .unit = "sequences",
                  .range = from(1, million),
                  .description = "Sequences of a step, over all ranks and micro-steps."});
  keys.push_back({.section = "train",
                  .name = "micro_batch",
                  .field = field<s, &C::micro_batch>(),
                  .unit = "sequences",
                  .range = from(0, million),
                  .description = "Sequences that a rank computes at once; the rest of its share "
                                 "follows in further micro-steps. 0: its whole share."});
}

void add_optimizer(std::vector<Key>& keys) {
  using C = OptimizerConfig;
  constexpr auto s = &Config::optimizer;
  keys.push_back({.section = "optimizer",
                  .name = "learning_rate",
                  .field = field<s, &C::learning_rate>(),
                  .range = above(0),
                  .description = "Largest learning rate, reached at the end of the warm-up."});
  keys.push_back({.section = "optimizer",
                  .name = "schedule",
                  .field = field<s, &C::schedule>(),
                  .choices = {"cosine", "linear", "constant_decay"},
                  .description =
                      "Course after the warm-up: down along a cosine or a line until the "
                      "last step, or constant with a fall over the last `decay_steps`."});
  keys.push_back({.section = "optimizer",
                  .name = "warmup_steps",
                  .field = field<s, &C::warmup_steps>(),
                  .unit = "steps",
                  .range = from(0, 1e12),
                  .description = "First steps, over which the rate rises linearly."});
  keys.push_back({.section = "optimizer",
                  .name = "min_learning_rate",
                  .field = field<s, &C::min_learning_rate>(),
                  .range = from(0),
                  .description = "Learning rate at the end of cosine and linear schedules."});
  keys.push_back({.section = "optimizer",
                  .name = "decay_steps",
                  .field = field<s, &C::decay_steps>(),
                  .unit = "steps",
                  .range = from(0, 1e12),
                  .description = "With `constant_decay`: the last steps, over which the rate falls "
                                 "linearly."});
  keys.push_back({.section = "optimizer",
                  .name = "weight_decay",
                  .field = field<s, &C::weight_decay>(),
                  .range = from(0),
                  .description = "Decoupled weight decay of AdamW; norms and biases have none."});
  keys.push_back({.section = "optimizer",
                  .name = "beta1",
                  .field = field<s, &C::beta1>(),
                  .range = rate(),
                  .description = "Decay of the mean of gradients."});
  keys.push_back({.section = "optimizer",
                  .name = "beta2",
                  .field = field<s, &C::beta2>(),
                  .range = rate(),
                  .description = "Decay of the mean of squared gradients."});
  keys.push_back(
      {.section = "optimizer",
       .name = "epsilon",
       .field = field<s, &C::epsilon>(),
       .range = above(0),
       .description = "Added to the root of the second moment, against division by zero."});
  keys.push_back({.section = "optimizer",
                  .name = "clip_norm",
                  .field = field<s, &C::clip_norm>(),
                  .range = from(0),
                  .description = "Global norm that gradients are scaled down to; 0: no clipping."});
}

void add_evaluate(std::vector<Key>& keys) {
  using C = EvaluateConfig;
  constexpr auto s = &Config::evaluate;
  keys.push_back({.section = "evaluate",
                  .name = "every",
                  .field = field<s, &C::every>(),
                  .unit = "steps",
                  .range = from(0, 1e12),
                  .description = "Steps between evaluations; 0: only by `switchyard eval`."});
  keys.push_back({.section = "evaluate",
                  .name = "num_batches",
                  .field = field<s, &C::num_batches>(),
                  .unit = "batches",
                  .range = from(1, million),
                  .description = "Global batches of the validation split in an evaluation; all of "
                                 "the split if it has fewer."});
}

void add_checkpoint(std::vector<Key>& keys) {
  using C = CheckpointConfig;
  constexpr auto s = &Config::checkpoint;
  keys.push_back({.section = "checkpoint",
                  .name = "every",
                  .field = field<s, &C::every>(),
                  .unit = "steps",
                  .range = from(0, 1e12),
                  .description = "Steps between checkpoints; 0: only at the end and on request."});
  keys.push_back({.section = "checkpoint",
                  .name = "keep",
                  .field = field<s, &C::keep>(),
                  .unit = "checkpoints",
                  .range = from(1, million),
                  .description = "Newest checkpoints kept; older ones are removed."});
  keys.push_back({.section = "checkpoint",
                  .name = "resume",
                  .field = field<s, &C::resume>(),
                  .unit = "auto, never or path",
                  .description = "`auto`: from the newest valid checkpoint of this run, if it has "
                                 "any; `never`: from the start; or the folder of a checkpoint."});
}

void add_watchdog(std::vector<Key>& keys) {
  using C = WatchdogConfig;
  constexpr auto s = &Config::watchdog;
  const Range limit = from(0, 1e9);
  keys.push_back({.section = "watchdog",
                  .name = "setup",
                  .field = field<s, &C::setup>(),
                  .unit = "seconds",
                  .range = limit,
                  .description = "Limit before the first step: reading, allocating, resuming."});
  keys.push_back({.section = "watchdog",
                  .name = "step",
                  .field = field<s, &C::step>(),
                  .unit = "seconds",
                  .range = limit,
                  .description = "Limit in steps and evaluations."});
  keys.push_back({.section = "watchdog",
                  .name = "checkpoint",
                  .field = field<s, &C::checkpoint>(),
                  .unit = "seconds",
                  .range = limit,
                  .description = "Limit while saving a checkpoint."});
  keys.push_back({.section = "watchdog",
                  .name = "slow_every",
                  .field = field<s, &C::slow_every>(),
                  .unit = "steps",
                  .range = from(0, 1e12),
                  .description = "Steps between looks for ranks that compute more slowly than the "
                                 "others; 0: never."});
}

std::vector<Key> all_keys() {
  std::vector<Key> keys;
  add_run(keys);
  add_data(keys);
  add_model(keys);
  add_experts(keys);
  add_parallel(keys);
  add_train(keys);
  add_optimizer(keys);
  add_evaluate(keys);
  add_checkpoint(keys);
  add_watchdog(keys);
  return keys;
}

constexpr Section all_sections[] = {
    {"run", "What the run is and where it lives."},
    {"data", "What it trains on."},
    {"model", "The decoder: embedding, attention, feed-forward, head."},
    {"experts", "The mixture-of-experts layers."},
    {"parallel",
     "The mesh of ranks: data x context = ranks, and `expert` divides it. `mpirun -n` or `srun` "
     "gives the number of ranks."},
    {"train", "Length of the run and its batches."},
    {"optimizer", "AdamW and the course of its learning rate."},
    {"evaluate", "Loss on the validation split while training."},
    {"checkpoint", "Saving and resuming."},
    {"watchdog",
     "A job in which no rank makes progress for that long says which rank holds it up and ends with "
     "code 18; 0 sets no limit."},
};

}  // namespace

std::span<const Section> sections() {
  return all_sections;
}

std::span<const Key> schema() {
  static const std::vector<Key> keys = all_keys();
  return keys;
}

}  // namespace switchyard
