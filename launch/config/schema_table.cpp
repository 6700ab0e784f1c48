// The keys, a section a function; those of the model are in schema_model.cpp, of what a run does
// beside its steps in schema_run.cpp. The order is that of the document and of `switchyard config`.
#include "launch/config/schema_fields.hpp"

namespace switchyard {
namespace {

void add_run(std::vector<Key>& keys) {
  using C = RunConfig;
  constexpr auto s = &Config::run;
  keys.push_back({.section = "run",
                  .name = "output",
                  .field = field<s, &C::output>(),
                  .unit = "path",
                  .description =
                      "Folder of the run: effective configuration, metrics, logs and "
                      "checkpoints. Created if it does not exist; refused if it holds files "
                      "that no run made and a run would replace.",
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
                  .description = "Type of activations and of weights in products. Master weights, "
                                 "gradients, reductions, router and loss are fp32 in both."});
  keys.push_back({.section = "run",
                  .name = "device",
                  .field = field<s, &C::device>(),
                  .description = "Where the run computes. `auto`: on NVIDIA cards where this build "
                                 "has CUDA and every rank finds a card, else on the CPU; the start "
                                 "says which. `cuda` is refused by builds without it."});
  keys.push_back({.section = "run",
                  .name = "threads",
                  .field = field<s, &C::threads>(),
                  .unit = "threads",
                  .range = from(0, 4096),
                  .description = "Threads of a rank; 0: OMP_NUM_THREADS, else the cores of "
                                 "the host divided by its ranks."});
}

void add_context(std::vector<Key>& keys) {
  using C = ContextConfig;
  constexpr auto s = &Config::parallel;
  constexpr auto g = &ParallelConfig::context_split;
  keys.push_back({.section = "parallel",
                  .name = "context.ranks",
                  .field = field<s, &ParallelConfig::context>(),
                  .unit = "ranks",
                  .range = from(1, million),
                  .description = "Ranks that share a sequence: `ring` x `ulysses`. With 1, the "
                                 "product of the two counts."});
  keys.push_back({.section = "parallel",
                  .name = "context.ring",
                  .field = field<s, g, &C::ring>(),
                  .unit = "ranks",
                  .range = from(0, million),
                  .description = "Ranks that keys and values travel around; 0: those that "
                                 "`ulysses` leaves."});
  keys.push_back({.section = "parallel",
                  .name = "context.ulysses",
                  .field = field<s, g, &C::ulysses>(),
                  .unit = "ranks",
                  .range = from(0, million),
                  .description = "Neighbouring ranks that exchange their parts of the sequence for "
                                 "heads during attention; 0: those that `ring` leaves."});
  keys.push_back({.section = "parallel",
                  .name = "context.method",
                  .field = field<s, g, &C::method>(),
                  .description = "How keys and values reach the ranks of the ring: block after "
                                 "block, or all at once. Windows exchange only their borders in "
                                 "either."});
  keys.push_back({.section = "parallel",
                  .name = "context.layout",
                  .field = field<s, g, &C::layout>(),
                  .description = "Which positions a ring rank holds. `zigzag`: an early chunk and "
                                 "a late one, which gives all ranks the same work; `contiguous`: "
                                 "one chunk."});
  keys.push_back({.section = "parallel",
                  .name = "context.pad",
                  .field = field<s, g, &C::pad>(),
                  .description = "Whether a sequence that the ranks do not divide is split into "
                                 "unequal chunks instead of refused."});
  keys.push_back({.section = "parallel",
                  .name = "context.progress",
                  .field = field<s, g, &C::progress>(),
                  .num_withheld = 1,
                  .description = "What moves messages during the computation: calls between its "
                                 "blocks, or a thread."});
  keys.push_back({.section = "parallel",
                  .name = "context.rank_flops",
                  .field = field<s, g, &C::rank_flops>(),
                  .unit = "FLOP/s",
                  .range = above(0),
                  .description = "What `auto` takes a rank to attain in attention."});
  keys.push_back({.section = "parallel",
                  .name = "context.link_bytes",
                  .field = field<s, g, &C::link_bytes>(),
                  .unit = "bytes/s",
                  .range = above(0),
                  .description = "What `auto` takes a rank to send."});
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
  add_context(keys);
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
  keys.push_back({.section = "parallel",
                  .name = "share_devices",
                  .field = field<s, &C::share_devices>(),
                  .description = "Whether several ranks of a host may compute on one card, for "
                                 "tests: rank i takes card i modulo the number of cards."});
  keys.push_back({.section = "parallel",
                  .name = "backend",
                  .field = field<s, &C::backend>(),
                  .description = "What carries tensors between cards: `nccl`, from card to card; "
                                 "`mpi`, through the memory of the hosts. `auto`: NCCL where it is "
                                 "there and every rank has a card of its own. Both give the same "
                                 "bits. On CPUs always MPI."});
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
                  .description =
                      "Course after the warm-up: down along a cosine or a line over all "
                      "steps that follow, or constant with a fall along a line over the last "
                      "`decay_steps`."});
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
                  .description =
                      "Learning rate that every schedule falls towards; it would be reached one "
                      "step after the last, so that the last step still learns where it "
                      "is 0. `constant_decay` needs `decay_steps` to fall."});
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

std::vector<Key> all_keys() {
  std::vector<Key> keys;
  add_run(keys);
  add_data(keys);
  add_model(keys);
  add_experts(keys);
  add_parallel(keys);
  add_train(keys);
  add_optimizer(keys);
  add_numerics(keys);
  add_activations(keys);
  add_capture(keys);
  add_trace(keys);
  add_profile(keys);
  add_plan(keys);
  add_metrics(keys);
  add_evaluate(keys);
  add_checkpoint(keys);
  add_watchdog(keys);
  return keys;
}

constexpr KeyGroup all_groups[] = {
    {"model", "rope_scaling", "rope_scaling.kind"}, {"model", "position", "position.kind"},
    {"experts", "shared", "shared.number"},         {"experts", "router", "router.kind"},
    {"experts", "dispatch", "dispatch.kind"},       {"experts", "placement", "placement.order"},
    {"model", "latent", "latent.kv_rank"},          {"parallel", "context", "context.ranks"},
};

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
    {"numerics", "Exact mode: the same bits whatever the layout (docs/numerics.md)."},
    {"activations", "What layers do with the activations that the backward pass reads."},
    {"capture", "Activations of chosen steps, written to files."},
    {"trace", "Experts and weights of every token of chosen steps, written to files."},
    {"profile", "A time line of chosen steps (docs/reports.md)."},
    {"plan", "What foretells the seconds of a step (docs/planning.md)."},
    {"metrics", "What `metrics.jsonl` has, and forms beside it."},
    {"evaluate", "Loss on the validation split while training."},
    {"checkpoint", "Saving and resuming."},
    {"watchdog",
     "A job in which no rank makes progress for that long says which rank holds it up and ends "
     "with "
     "code 18; 0 sets no limit."},
};

}  // namespace

std::span<const Section> sections() {
  return all_sections;
}

std::span<const KeyGroup> key_groups() {
  return all_groups;
}

std::span<const Key> schema() {
  static const std::vector<Key> keys = all_keys();
  return keys;
}

}  // namespace switchyard
