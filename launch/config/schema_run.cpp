// The keys of what a run does beside its steps: keeping activations and showing them, evaluating,
// saving, watching.
#include "launch/config/schema_fields.hpp"

namespace switchyard {

void add_numerics(std::vector<Key>& keys) {
  using C = NumericsConfig;
  constexpr auto s = &Config::numerics;
  keys.push_back({.section = "numerics",
                  .name = "exact",
                  .field = field<s, &C::exact>(),
                  .description = "Losses, gradients, weights and checkpoints are the same bits on "
                                 "every number of ranks and every layout, at a price in time and "
                                 "memory."});
  keys.push_back({.section = "numerics",
                  .name = "unit_sequences",
                  .field = field<s, &C::unit_sequences>(),
                  .unit = "sequences",
                  .range = from(1, million),
                  .description = "Exact mode sums the gradients of so many sequences in fp32, and "
                                 "those sums without an order. It divides every micro-batch. Part "
                                 "of what a run computes: another value, other last bits."});
  keys.push_back({.section = "numerics",
                  .name = "max_context",
                  .field = field<s, &C::max_context>(),
                  .unit = "ranks",
                  .range = from(1, 1'000'000),
                  .description = "Where exact runs may split sequences: a multiple of all numbers "
                                 "of context ranks to be used, as 24 for 1, 2, 3, 4, 6 and 8. Sums "
                                 "in fp32 are then over a 2 max_context-th of a sequence."});
  keys.push_back({.section = "numerics",
                  .name = "fraction_bits",
                  .field = field<s, &C::fraction_bits>(),
                  .unit = "bits",
                  .range = from(20, 60),
                  .description = "Exact sums of gradients are whole multiples of 2^-fraction_bits, "
                                 "and a sum of a step stays below 2^(62 - fraction_bits): more "
                                 "bits for smaller gradients, fewer for larger ones."});
}

void add_activations(std::vector<Key>& keys) {
  using C = ActivationsConfig;
  constexpr auto s = &Config::activations;
  keys.push_back({.section = "activations",
                  .name = "policy",
                  .field = field<s, &C::policy>(),
                  .description = "`keep`: all in memory; `recompute`: most are computed again in "
                                 "the backward pass, except routing and attention; `spill`: they "
                                 "go to `store` and come back. The results are the same bits."});
  keys.push_back({.section = "activations",
                  .name = "layers",
                  .field = field<s, &C::layers>(),
                  .unit = "layers",
                  .range = from(0, 10'000),
                  .empty_word = "all",
                  .description = "Layers with that policy, the first being 0; the others keep."});
  keys.push_back({.section = "activations",
                  .name = "store",
                  .field = field<s, &C::store>(),
                  .description = "Where spilled activations lie: in the host's memory, or in a "
                                 "file a rank."});
  keys.push_back({.section = "activations",
                  .name = "folder",
                  .field = field<s, &C::folder>(),
                  .unit = "auto or path",
                  .description = "Of the files of store hdf5, on a disk of each host; `auto`: "
                                 "$TMPDIR, or /tmp without it."});
  keys.push_back({.section = "activations",
                  .name = "memory_megabytes",
                  .field = field<s, &C::memory_megabytes>(),
                  .unit = "MB",
                  .range = from(0, 1e9),
                  .description = "What a rank may use for the activations of spilled layers that "
                                 "are at work or on their way, with balanced routing; 0: two "
                                 "layers' worth, the least that works."});
}

void add_capture(std::vector<Key>& keys) {
  using C = CaptureConfig;
  constexpr auto s = &Config::capture;
  keys.push_back({.section = "capture",
                  .name = "steps",
                  .field = field<s, &C::steps>(),
                  .unit = "steps",
                  .range = from(1, 1e12),
                  .empty_word = "none",
                  .description = "Steps whose activations are written to `captures/` in the run's "
                                 "folder, readable with h5py: `[10, 20..22]`."});
  keys.push_back({.section = "capture",
                  .name = "layers",
                  .field = field<s, &C::layers>(),
                  .unit = "layers",
                  .range = from(0, 10'000),
                  .empty_word = "all",
                  .description = "Layers that are captured, the first being 0."});
  keys.push_back({.section = "capture",
                  .name = "tensors",
                  .field = field<s, &C::tensors>(),
                  .empty_word = "all",
                  .description = "`hidden`: the residual stream as it enters the layer; "
                                 "`attention_lse`: log sum exp of the attention scores, by head; "
                                 "`gate_probs`: the router's probabilities."});
}

void add_trace(std::vector<Key>& keys) {
  using C = TraceConfig;
  constexpr auto s = &Config::trace;
  keys.push_back({.section = "trace",
                  .name = "routing",
                  .field = field<s, &C::routing>(),
                  .description = "Whether the routers' decisions in `steps` are written to "
                                 "`routing/` in the run's folder (docs/traces.md)."});
  keys.push_back({.section = "trace",
                  .name = "steps",
                  .field = field<s, &C::steps>(),
                  .unit = "steps",
                  .range = from(1, 1e12),
                  .empty_word = "none",
                  .description = "Steps that are traced: `10..20`, or `[10, 20..22]`."});
}

void add_profile(std::vector<Key>& keys) {
  keys.push_back({.section = "profile",
                  .name = "steps",
                  .field = field<&Config::profile, &ProfileConfig::steps>(),
                  .unit = "steps",
                  .range = from(1, 1e12),
                  .empty_word = "none",
                  .description =
                      "Steps whose computation and exchanges on all ranks are written to "
                      "`traces/` in the run's folder, for Perfetto: `10..12`."});
}

void add_plan(std::vector<Key>& keys) {
  keys.push_back({.section = "plan",
                  .name = "profile",
                  .field = field<&Config::plan, &PlanConfig::profile>(),
                  .unit = "auto, none or path",
                  .description =
                      "The machine's profile, as `switchyard bench machine` measures it; `auto`: "
                      "~/.config/switchyard/profile.yaml, if it is of this kind of processor. "
                      "Without one no seconds are foretold."});
}

void add_metrics(std::vector<Key>& keys) {
  keys.push_back({.section = "metrics",
                  .name = "tensorboard",
                  .field = field<&Config::metrics, &MetricsConfig::tensorboard>(),
                  .description =
                      "Also writes event files for TensorBoard to `events/` in the run's "
                      "folder."});
  keys.push_back({.section = "metrics",
                  .name = "layers_every",
                  .field = field<&Config::metrics, &MetricsConfig::layers_every>(),
                  .unit = "steps",
                  .range = from(0, 1e12),
                  .description =
                      "Steps between the rows of `metrics.jsonl` that tell of each layer with "
                      "experts: load of every expert, drops, the router's entropy, seconds "
                      "(docs/reports.md). 0: none."});
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
                  .name = "num_sequences",
                  .field = field<s, &C::num_sequences>(),
                  .unit = "sequences",
                  .range = from(0, 1e12),
                  .description =
                      "Sequences of the validation split in an evaluation, its first; 0, "
                      "or more than it has: all. Each counts once, whatever the batch "
                      "and the ranks."});
  keys.push_back({.section = "evaluate",
                  .name = "accuracy",
                  .field = field<s, &C::accuracy>(),
                  .description =
                      "Whether evaluations also tell the share of targets that are the most "
                      "probable token. With `data.loss_mask` they always do, of the targets that "
                      "count."});
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
                  .description = "Newest checkpoints kept; older ones are removed. That of step 0 "
                                 "(`checkpoint.initial`) stays and is not counted."});
  keys.push_back({.section = "checkpoint",
                  .name = "initial",
                  .field = field<s, &C::initial>(),
                  .description = "Saves the untrained model as step 0 before the first step."});
  keys.push_back({.section = "checkpoint",
                  .name = "resume",
                  .field = field<s, &C::resume>(),
                  .unit = "auto, never or path",
                  .description =
                      "`auto`: from the newest valid checkpoint of this run, if it has "
                      "any; `never`: from the start; or the folder of a checkpoint to "
                      "go on from, or of a run, for its newest. The last two begin a new "
                      "course and need a "
                      "`run.output` without checkpoints; a Slurm job that is queued "
                      "again goes on with the course it began."});
  keys.push_back(
      {.section = "checkpoint",
       .name = "start_from",
       .field = field<s, &C::start_from>(),
       .unit = "none or path",
       .description =
           "`none`, or the folder of a checkpoint, or of a run, for its newest, with "
           "which a run begins that has no checkpoint of its own to go on from. Its lineage is "
           "kept in every checkpoint."});
  keys.push_back({.section = "checkpoint",
                  .name = "start_with",
                  .field = field<s, &C::start_with>(),
                  .description =
                      "What is taken of it. `weights`: values, and biases of routers; "
                      "`weights_and_moments`: the optimizer's moments, too; with both, step, "
                      "schedule and position in the data begin anew. `all`: these, too, as if "
                      "that run went on."});
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

}  // namespace switchyard
