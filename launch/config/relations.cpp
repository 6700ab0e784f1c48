#include "launch/config/relations.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <string_view>
#include <tuple>

#include "cmake/built_with.hpp"
#include "data/mixture.hpp"
#include "experts/dispatch_mistakes.hpp"
#include "experts/router_mistakes.hpp"
#include "tensor/error.hpp"
#include "trainer/batch_layout.hpp"

namespace switchyard {
namespace {

class Checker {
 public:
  Checker(const LoadedConfig& loaded, const std::vector<bool>& is_unknown)
      : loaded_(loaded), is_unknown_(is_unknown) {}

  // True when every key has a valid value, so that a relation between them can be checked.
  bool knows(std::initializer_list<std::string_view> paths) const {
    return std::none_of(paths.begin(), paths.end(), [&](std::string_view path) {
      const Key* key = find_key(path);
      expect(key != nullptr, "a key of the schema");
      return !is_unknown_.empty() && is_unknown_[index_of(*key)];
    });
  }

  void blame(const std::vector<std::string_view>& paths, std::string problem) {
    const Key* blamed = find_key(paths.front());
    for (const std::string_view path : paths) {
      const Key* key = find_key(path);
      if (turn_of(*key) > turn_of(*blamed)) blamed = key;
    }
    broken_.push_back({blamed, std::move(problem)});
  }

  std::vector<BrokenRelation> take() { return std::move(broken_); }

 private:
  // When a value was set: the default, the file, then the arguments one after the other.
  int turn_of(const Key& key) const {
    const Origin& origin = loaded_.origin(key);
    if (origin.kind == Origin::Kind::default_value) return 0;
    return 1 + origin.number;
  }

  const LoadedConfig& loaded_;
  const std::vector<bool>& is_unknown_;
  std::vector<BrokenRelation> broken_;
};

// "1, 2, 4, 8"; of many only the first and the last few.
std::string divisors(std::int64_t number) {
  std::vector<std::int64_t> all;
  for (std::int64_t d = 1; d * d <= number; ++d) {
    if (number % d != 0) continue;
    all.push_back(d);
    if (d != number / d) all.push_back(number / d);
  }
  std::sort(all.begin(), all.end());
  if (all.size() <= 10) return fmt::format("{}", fmt::join(all, ", "));
  return fmt::format("{}, ..., {}", fmt::join(all.begin(), all.begin() + 6, ", "),
                     fmt::join(all.end() - 3, all.end(), ", "));
}

// "16 or 20": the multiples of `step` around `number`.
std::string multiples_around(std::int64_t number, std::int64_t step) {
  const std::int64_t below = number / step * step;
  if (below == 0) return fmt::format("{}", step);
  return fmt::format("{} or {}", below, below + step);
}

void check_heads(Checker& checker, const ModelConfig& model) {
  if (!model.has_latent_attention() &&
      checker.knows({"model.hidden", "model.num_heads", "model.head_dim"})) {
    if (model.head_dim == 0 && model.hidden % model.num_heads != 0) {
      checker.blame(
          {"model.hidden", "model.num_heads", "model.head_dim"},
          fmt::format("hidden / num_heads = {} / {} is not whole, and head_dim is 0; make "
                      "hidden {}, or set head_dim",
                      model.hidden, model.num_heads,
                      multiples_around(model.hidden, model.num_heads)));
    } else if (model.turns_positions() && model.effective_head_dim() % 2 != 0) {
      checker.blame({"model.head_dim", "model.hidden", "model.num_heads"},
                    fmt::format("head_dim = {}{} is odd, and rotary positions need pairs; make it "
                                "even, or choose another model.position",
                                model.head_dim == 0 ? fmt::format("hidden / num_heads = {} / {} = ",
                                                                  model.hidden, model.num_heads)
                                                    : "",
                                model.effective_head_dim()));
    }
  }
  if (checker.knows({"model.num_heads", "model.num_kv_heads"}) &&
      model.num_heads % model.num_kv_heads != 0) {
    checker.blame(
        {"model.num_kv_heads", "model.num_heads"},
        fmt::format("num_heads / num_kv_heads = {} / {} is not whole; legal num_kv_heads: "
                    "{}",
                    model.num_heads, model.num_kv_heads, divisors(model.num_heads)));
  }
}

// What of an entry of model.mixer counts with other kinds only.
std::string idle_value(const MixerConfig& mixer) {
  const auto counts_with = [&](std::string_view value, std::string_view kinds) {
    return fmt::format("{} counts only with {}, not with {}; leave it out or change the kind",
                       value, kinds, name_of(mixer.kind));
  };
  if (mixer.kind != MixerKind::window && mixer.window != 0)
    return counts_with(fmt::format("window = {}", mixer.window), "kind window");
  if (!mixer.is_attention() && mixer.sinks != 0)
    return counts_with(fmt::format("sinks = {}", mixer.sinks), "kind full or window");
  if (!mixer.has_delta_rule() && mixer.negative_eigenvalues)
    return counts_with("negative_eigenvalues", "kind delta or gated_delta");
  if (!mixer.is_attention()) return {};
  const MixerConfig defaults;
  for (const auto& [name, value, idle] : {std::tuple{"heads", mixer.heads, defaults.heads},
                                          {"groups", mixer.groups, defaults.groups},
                                          {"key_width", mixer.key_width, defaults.key_width},
                                          {"value_width", mixer.value_width, defaults.value_width},
                                          {"chunk", mixer.chunk, defaults.chunk}})
    if (value != idle) return counts_with(fmt::format("{} = {}", name, value), "a recurrence");
  return {};
}

// Of a recurrence, whose sizes follow in part from attention's.
std::string wrong_sizes(const MixerConfig& mixer, const ModelConfig& model) {
  const std::int64_t heads = mixer.heads > 0 ? mixer.heads : model.num_heads;
  if (mixer.groups > 0 && heads % mixer.groups != 0)
    return fmt::format("heads / groups = {} / {} is not whole; legal groups: {}", heads,
                       mixer.groups, divisors(heads));
  if (mixer.kind == MixerKind::retention && model.turns_positions() && mixer.key_width > 0 &&
      mixer.key_width != model.effective_head_dim())
    return fmt::format(
        "key_width = {} of a retention is not head_dim = {}, as wide as rotary "
        "positions turn; leave it out, or choose another model.position",
        mixer.key_width, model.effective_head_dim());
  return {};
}

void check_mixers(Checker& checker, const ModelConfig& model) {
  if (!checker.knows({"model.mixer"})) return;
  const bool knows_heads =
      checker.knows({"model.num_heads", "model.head_dim", "model.hidden", "model.position.kind"});
  for (std::size_t i = 0; i < model.mixer.size(); ++i) {
    const MixerConfig& mixer = model.mixer[i];
    const std::string entry = model.mixer.size() > 1 ? fmt::format("entry {}: ", i) : "";
    if (mixer.kind == MixerKind::window && mixer.window == 0)
      checker.blame({"model.mixer"},
                    fmt::format("{}kind window needs a window of at least 1 token", entry));
    if (const std::string idle = idle_value(mixer); !idle.empty())
      checker.blame({"model.mixer"}, entry + idle);
    else if (!mixer.is_attention() && knows_heads)
      if (const std::string wrong = wrong_sizes(mixer, model); !wrong.empty())
        checker.blame({"model.mixer", "model.num_heads", "model.head_dim", "model.position.kind"},
                      entry + wrong);
  }
  const auto num_entries = static_cast<std::int64_t>(model.mixer.size());
  if (checker.knows({"model.num_layers"}) && num_entries > model.num_layers)
    checker.blame({"model.mixer", "model.num_layers"},
                  fmt::format("has {} entries, one for each layer at most, and num_layers is {}",
                              num_entries, model.num_layers));
}

// Latent attention goes with few of the other keys of attention.
void check_latent(Checker& checker, const ModelConfig& model) {
  if (!checker.knows({"model.latent.kv_rank"}) || !model.has_latent_attention()) return;
  const LatentConfig& latent = model.latent;
  if (checker.knows({"model.latent.rope_dim"}) && latent.rope_dim % 2 != 0)
    checker.blame({"model.latent.rope_dim"},
                  fmt::format("rope_dim = {} is odd, and rotary positions need pairs; make it even",
                              latent.rope_dim));
  if (checker.knows({"model.latent.value_dim", "model.latent.nope_dim", "model.latent.rope_dim"}) &&
      latent.value_dim > latent.nope_dim + latent.rope_dim)
    checker.blame({"model.latent.value_dim"},
                  fmt::format("value_dim = {} is more than nope_dim + rope_dim = {} + {}; lower it",
                              latent.value_dim, latent.nope_dim, latent.rope_dim));
  const auto refuse = [&](std::string_view key, bool is_set, std::string_view remedy) {
    if (checker.knows({key}) && is_set)
      checker.blame({key, "model.latent.kv_rank"},
                    fmt::format("latent attention (kv_rank = {}) goes without it; {}",
                                latent.kv_rank, remedy));
  };
  refuse("model.mixer", model.mixer.size() != 1 || !(model.mixer.front() == MixerConfig{}),
         "leave it out");
  refuse("model.position.kind", !model.turns_positions(), "write rope");
  refuse("model.qk_norm", model.qk_norm != QkNorm::none, "write none");
  refuse("model.qkv_bias", model.qkv_bias, "write false");
  refuse("model.output_bias", model.output_bias, "write false");
  refuse("model.head_dim", model.head_dim != 0, "write 0: latent.nope_dim and rope_dim say it");
  refuse("model.num_kv_heads", model.num_kv_heads != model.num_heads,
         "write as many as num_heads: every head has keys of its own");
}

void check_positions(Checker& checker, const ModelConfig& model) {
  if (!checker.knows({"model.position.kind"})) return;
  if (checker.knows({"model.rope_scaling.kind"}) && !model.turns_positions() &&
      model.rope_scaling.kind != kernels::RopeScaling::none)
    checker.blame({"model.rope_scaling.kind", "model.position.kind"},
                  fmt::format("kind = {} counts only with rotary positions, and model.position is "
                              "{}; leave it out or write model.position: rope",
                              name_of(model.rope_scaling.kind), name_of(model.position.kind)));
  if (checker.knows({"model.hidden"}) && model.position.kind == PositionKind::sinusoidal &&
      model.hidden % 2 != 0)
    checker.blame(
        {"model.position.kind", "model.hidden"},
        fmt::format("hidden = {} is odd, and sinusoidal positions are pairs of a sine and "
                    "a cosine; make it even, or choose another model.position",
                    model.hidden));
}

void check_rope_scaling(Checker& checker, const ModelConfig& model) {
  const RopeScalingConfig& scaling = model.rope_scaling;
  if (!checker.knows({"model.rope_scaling.kind"})) return;
  if (checker.knows({"model.rope_scaling.factor"}) && scaling.kind == kernels::RopeScaling::none &&
      scaling.factor != 1)
    checker.blame(
        {"model.rope_scaling.factor"},
        fmt::format("factor = {} counts only with kind linear, ntk, yarn or llama3, not with none",
                    scaling.factor));
  if (scaling.kind != kernels::RopeScaling::yarn && scaling.kind != kernels::RopeScaling::llama3)
    return;
  if (checker.knows({"model.rope_scaling.original_length"}) && scaling.original_length == 0)
    checker.blame({"model.rope_scaling.original_length", "model.rope_scaling.kind"},
                  fmt::format("kind {} needs original_length, the sequence length before scaling",
                              name_of(scaling.kind)));
  if (checker.knows({"model.rope_scaling.beta_fast", "model.rope_scaling.beta_slow"}) &&
      scaling.beta_fast <= scaling.beta_slow)
    checker.blame({"model.rope_scaling.beta_fast", "model.rope_scaling.beta_slow"},
                  fmt::format("beta_fast = {} must be above beta_slow = {}", scaling.beta_fast,
                              scaling.beta_slow));
}

void check_experts(Checker& checker, const Config& config) {
  const ExpertsConfig& experts = config.experts;
  if (checker.knows({"experts.shared.number", "experts.shared.gate"}) &&
      experts.shared.number == 0 && experts.shared.gate != SharedGate::none)
    checker.blame({"experts.shared.gate", "experts.shared.number"},
                  fmt::format("gate = {} counts only with shared experts, and number is 0; leave "
                              "it out or set number",
                              name_of(experts.shared.gate)));
  if (!checker.knows({"experts.num_experts", "experts.every"})) return;
  if (experts.num_experts == 0 || experts.every == 0) return;
  if (checker.knows({"experts.top_k"}) && experts.top_k > experts.num_experts) {
    checker.blame(
        {"experts.top_k", "experts.num_experts"},
        fmt::format("top_k = {} is more than num_experts = {}; lower top_k or add experts",
                    experts.top_k, experts.num_experts));
  }
  if (!checker.knows({"model.num_layers", "experts.first_dense"})) return;
  if (experts.every > config.model.num_layers) {
    checker.blame({"experts.every", "model.num_layers"},
                  fmt::format("every = {} is more than num_layers = {}, so no layer would have "
                              "experts; lower it, or write 0 for a dense model",
                              experts.every, config.model.num_layers));
  } else if (!experts.any_layer_has_experts(config.model.num_layers)) {
    checker.blame({"experts.first_dense", "experts.every", "model.num_layers"},
                  fmt::format("first_dense = {} leaves no layer with experts: num_layers = {} and "
                              "every = {}; make it at most {}, or num_experts 0 for a dense model",
                              experts.first_dense, config.model.num_layers, experts.every,
                              config.model.num_layers / experts.every * experts.every - 1));
  }
}

void check_placement(Checker& checker, const Config& config) {
  if (!checker.knows({"experts.num_experts", "experts.placement.order"})) return;
  std::vector<std::int64_t> order = config.experts.placement.order;
  if (order.empty()) return;
  std::ranges::sort(order);
  const auto expected = static_cast<std::size_t>(config.experts.num_experts);
  bool each_once = order.size() == expected;
  for (std::size_t i = 0; each_once && i < expected; ++i)
    each_once = order[i] == static_cast<std::int64_t>(i);
  if (!each_once)
    checker.blame({"experts.placement.order", "experts.num_experts"},
                  fmt::format("order has to name each of the num_experts = {} experts once, from 0 "
                              "to {}, or be left out",
                              config.experts.num_experts, config.experts.num_experts - 1));
}

void check_data(Checker& checker, const Config& config) {
  if (checker.knows({"data.loss_mask", "numerics.exact"}) && config.data.loss_mask &&
      config.numerics.exact)
    checker.blame({"data.loss_mask", "numerics.exact"},
                  "exact sums are divided by the same number of tokens in every step, which a loss "
                  "mask changes; write loss_mask: false or exact: false");
  if (!checker.knows({"data.mixture"})) return;
  try {
    parse_mixture(config.data.mixture);
  } catch (const ConfigError& error) {
    checker.blame({"data.mixture"}, error.what());
  }
}

void blame_known(Checker& checker, std::vector<ConfigMistake> mistakes) {
  for (ConfigMistake& mistake : mistakes)
    if (std::all_of(mistake.keys.begin(), mistake.keys.end(),
                    [&](std::string_view path) { return checker.knows({path}); }))
      checker.blame(mistake.keys, std::move(mistake.text));
}

// Counts of a pool of tokens are 32-bit numbers.
void check_balance_scope(Checker& checker, const Config& config) {
  const ExpertsConfig& experts = config.experts;
  if (!checker.knows({"experts.balance_scope", "experts.top_k", "train.global_batch",
                      "model.sequence_length"}) ||
      experts.balance_scope == BalanceScope::sequence)
    return;
  constexpr double most = std::numeric_limits<std::int32_t>::max();
  const double slots = static_cast<double>(config.train.global_batch) *
                       static_cast<double>(config.model.sequence_length) *
                       static_cast<double>(experts.top_k);
  if (slots > most)
    checker.blame({"experts.balance_scope", "train.global_batch"},
                  fmt::format("global_batch x sequence_length x top_k = {} x {} x {} is more than "
                              "{} choices, which balance_scope {} can count; write sequence",
                              config.train.global_batch, config.model.sequence_length,
                              experts.top_k, most, name_of(experts.balance_scope)));
}

void check_start(Checker& checker, const CheckpointConfig& checkpoint) {
  if (!checker.knows({"checkpoint.start_from", "checkpoint.start_with", "checkpoint.resume"}))
    return;
  if (!checkpoint.starts_from() && checkpoint.start_with != StartWith::weights)
    checker.blame(
        {"checkpoint.start_with", "checkpoint.start_from"},
        fmt::format("start_with = {} counts only with start_from, the checkpoint to begin "
                    "with; set it or leave both out",
                    name_of(checkpoint.start_with)));
  if (checkpoint.starts_from() && !checkpoint.resume_choice())
    checker.blame({"checkpoint.start_from", "checkpoint.resume"},
                  fmt::format("resume = {} names a checkpoint to go on from, so that start_from = "
                              "{} would never be read; leave one of them out",
                              checkpoint.resume, checkpoint.start_from));
}

void check_batch(Checker& checker, const TrainConfig& train) {
  if (!checker.knows({"train.global_batch", "train.micro_batch"})) return;
  if (train.micro_batch == 0 || train.global_batch % train.micro_batch == 0) return;
  checker.blame({"train.micro_batch", "train.global_batch"},
                fmt::format("global_batch / micro_batch = {} / {} is not whole; legal micro_batch: "
                            "0, {}",
                            train.global_batch, train.micro_batch, divisors(train.global_batch)));
}

void check_schedule(Checker& checker, const Config& config) {
  const OptimizerConfig& optimizer = config.optimizer;
  const std::int64_t num_steps = config.train.num_steps;
  // A warm-up longer than the run is legal: a short trial of a long schedule.
  if (checker.knows({"optimizer.schedule", "optimizer.decay_steps", "optimizer.warmup_steps",
                     "train.num_steps"}) &&
      optimizer.schedule == Schedule::constant_decay && optimizer.warmup_steps <= num_steps &&
      optimizer.warmup_steps + optimizer.decay_steps > num_steps) {
    checker.blame({"optimizer.decay_steps", "optimizer.warmup_steps", "train.num_steps"},
                  fmt::format("warmup_steps + decay_steps = {} + {} = {} is more than num_steps = "
                              "{}; legal decay_steps: at most {}",
                              optimizer.warmup_steps, optimizer.decay_steps,
                              optimizer.warmup_steps + optimizer.decay_steps, num_steps,
                              num_steps - optimizer.warmup_steps));
  }
  if (checker.knows({"optimizer.schedule", "optimizer.decay_steps"}) &&
      optimizer.schedule != Schedule::constant_decay && optimizer.decay_steps > 0) {
    checker.blame({"optimizer.decay_steps", "optimizer.schedule"},
                  fmt::format("decay_steps = {} counts only with schedule constant_decay, not with "
                              "{}; leave it out or change the schedule",
                              optimizer.decay_steps, name_of(optimizer.schedule)));
  }
  if (checker.knows({"optimizer.min_learning_rate", "optimizer.learning_rate"}) &&
      optimizer.min_learning_rate > optimizer.learning_rate) {
    checker.blame({"optimizer.min_learning_rate", "optimizer.learning_rate"},
                  fmt::format("min_learning_rate = {} is more than learning_rate = {}; lower it",
                              optimizer.min_learning_rate, optimizer.learning_rate));
  }
}

void check_wire(Checker& checker, const Config& config) {
  const DispatchConfig& dispatch = config.experts.dispatch;
  if (!checker.knows(
          {"experts.dispatch.wire", "experts.dispatch.kind", "experts.latent", "model.hidden"}))
    return;
  const std::int64_t width = config.experts.width_of(config.model.hidden);
  if (dispatch.kind == DispatchKind::all_to_all || dispatch.wire == kernels::WireFormat::compute ||
      width % 4 == 0)
    return;
  checker.blame(
      {"experts.dispatch.wire", "experts.dispatch.kind", "experts.latent", "model.hidden"},
      fmt::format(
          "with kind {} packed tokens travel in words of 4 bytes, and tokens of {} elements "
          "(experts.latent, or model.hidden) do not fill them; make those a multiple of 4, "
          "or write wire: compute or kind: all_to_all",
          name_of(dispatch.kind), width));
}

void check_exact(Checker& checker, const Config& config) {
  if (!checker.knows({"numerics.exact"}) || !config.numerics.exact) return;
  if (checker.knows({"parallel.context.method"}))
    for (ConfigMistake& mistake : method_mistakes(exact_parallel(config).context_split))
      checker.blame(mistake.keys, std::move(mistake.text));
  if (checker.knows({"experts.dispatch.wire"}) &&
      config.experts.dispatch.wire != kernels::WireFormat::compute)
    checker.blame({"experts.dispatch.wire", "numerics.exact"},
                  fmt::format("wire {} rounds what travels, and how much travels follows from the "
                              "layout, which numerics.exact forbids; write compute, or "
                              "numerics.exact: false",
                              name_of(config.experts.dispatch.wire)));
  if (checker.knows({"experts.balance_scope"}) &&
      config.experts.balance_scope != BalanceScope::sequence)
    checker.blame(
        {"experts.balance_scope", "numerics.exact"},
        fmt::format("balance_scope {} takes its means over the sequences that share a micro-step, "
                    "which follow from the layout, and numerics.exact forbids that; write sequence "
                    "(or bias_rate, for a balance over all), or numerics.exact: false",
                    name_of(config.experts.balance_scope)));
}

void check_layers(Checker& checker, std::string_view path, const std::vector<std::int64_t>& layers,
                  std::int64_t num_layers) {
  if (!checker.knows({path, "model.num_layers"})) return;
  for (const std::int64_t layer : layers)
    if (layer >= num_layers) {
      checker.blame({path, "model.num_layers"},
                    fmt::format("there is no layer {}: num_layers is {}, so the layers are 0 to {}",
                                layer, num_layers, num_layers - 1));
      return;
    }
}

void check_activations(Checker& checker, const Config& config) {
  check_layers(checker, "activations.layers", config.activations.layers, config.model.num_layers);
  check_layers(checker, "capture.layers", config.capture.layers, config.model.num_layers);
  if (checker.knows({"activations.policy", "activations.memory_megabytes"}) &&
      config.activations.policy != LayerPolicy::spill && config.activations.memory_megabytes > 0)
    checker.blame(
        {"activations.memory_megabytes", "activations.policy"},
        fmt::format("memory_megabytes = {} counts only with policy spill, not with {}; "
                    "leave it out or change the policy",
                    config.activations.memory_megabytes, name_of(config.activations.policy)));
}

bool has_experts(const Config& config) {
  return config.experts.num_experts > 0 &&
         config.experts.any_layer_has_experts(config.model.num_layers);
}

void check_trace(Checker& checker, const Config& config) {
  if (!checker.knows({"trace.routing", "trace.steps"})) return;
  const TraceConfig& trace = config.trace;
  if (trace.routing && trace.steps.empty())
    checker.blame({"trace.steps", "trace.routing"},
                  "routing = true traces no step without steps; write those to trace, as 10..20");
  if (!trace.routing && !trace.steps.empty())
    checker.blame({"trace.routing", "trace.steps"},
                  "steps count only with routing: true; write it or leave steps out");
  if (!checker.knows({"experts.num_experts", "experts.every", "experts.first_dense",
                      "model.num_layers", "experts.router.replay"}))
    return;
  if (trace.traces_routing() && !has_experts(config))
    checker.blame({"trace.routing", "experts.num_experts"},
                  "the model has no layer with experts, so that there is nothing to trace; leave "
                  "trace out");
  const std::string& replay = config.experts.router.replay;
  if (!config.experts.router.replays() || !trace.traces_routing()) return;
  if (replay == config.run.output || replay == config.run.output + "/routing")
    checker.blame({"experts.router.replay", "run.output", "trace.routing"},
                  fmt::format("{} would be replaced by the trace of this run; choose another "
                              "run.output or leave trace out",
                              replay));
}

// The batch that is left for one data rank, given a legal mesh.
void check_batch_of_ranks(Checker& checker, const Config& config, std::int64_t data) {
  const TrainConfig& train = config.train;
  const std::int64_t micro = std::max<std::int64_t>(train.micro_batch, 1);
  if (train.global_batch % (data * micro) == 0) return;
  const std::string equation =
      train.micro_batch == 0
          ? fmt::format("global_batch / data = {} / {}", train.global_batch, data)
          : fmt::format("global_batch / (data x micro_batch) = {} / ({} x {})", train.global_batch,
                        data, micro);
  checker.blame({"train.global_batch", "train.micro_batch", "parallel.data"},
                fmt::format("{} is not whole; make global_batch {}", equation,
                            multiples_around(train.global_batch, data * micro)));
}

}  // namespace

std::vector<BrokenRelation> broken_relations(const LoadedConfig& loaded,
                                             const std::vector<bool>& is_unknown) {
  Checker checker(loaded, is_unknown);
  const Config& config = loaded.config;
  if (!built_with_cuda && checker.knows({"run.device"}) && config.run.device == RunDevice::cuda)
    checker.blame({"run.device"},
                  "this build has no cuda device; write cpu or auto, or build it where the CUDA "
                  "toolkit is installed (cmake --preset cuda)");
  check_data(checker, config);
  check_heads(checker, config.model);
  check_mixers(checker, config.model);
  check_positions(checker, config.model);
  check_rope_scaling(checker, config.model);
  check_latent(checker, config.model);
  check_experts(checker, config);
  blame_known(checker, router_mistakes(config.experts));
  blame_known(checker, dispatch_mistakes(config.experts));
  check_placement(checker, config);
  check_wire(checker, config);
  check_balance_scope(checker, config);
  check_start(checker, config.checkpoint);
  check_batch(checker, config.train);
  check_schedule(checker, config);
  check_activations(checker, config);
  check_trace(checker, config);
  check_exact(checker, config);
  return checker.take();
}

std::vector<BrokenRelation> broken_relations_for_ranks(const LoadedConfig& loaded,
                                                       std::int64_t num_ranks) {
  const std::vector<bool> nothing_unknown;
  Checker checker(loaded, nothing_unknown);
  const Config& config = loaded.config;
  if (Mesh::mistakes(config.parallel, num_ranks).empty())
    check_batch_of_ranks(checker, config, Mesh::resolved(config.parallel, num_ranks).data);
  for (ConfigMistake& mistake : layout_mistakes(config, num_ranks))
    checker.blame(mistake.keys, std::move(mistake.text));
  return checker.take();
}

std::vector<BrokenRelation> broken_relations_for_vocabulary(const LoadedConfig& loaded,
                                                            std::int64_t num_tokens) {
  const std::vector<bool> nothing_unknown;
  Checker checker(loaded, nothing_unknown);
  const std::int64_t vocab_size = loaded.config.model.vocab_size;
  if (vocab_size != 0 && vocab_size < num_tokens)
    checker.blame(
        {"model.vocab_size"},
        fmt::format("vocab_size = {}, but the tokenizer of {} has {} tokens; write 0 (the "
                    "tokenizer's) or at least {}",
                    vocab_size, loaded.config.data.path, num_tokens, num_tokens));
  return checker.take();
}

std::vector<BrokenRelation> doubtful_relations(const LoadedConfig& loaded) {
  const std::vector<bool> nothing_unknown;
  Checker checker(loaded, nothing_unknown);
  const ExpertsConfig& experts = loaded.config.experts;
  if (experts.num_experts > 0 && experts.every > 0 && experts.top_k == 1 &&
      experts.normalize_top_k && experts.router.has_weights())
    checker.blame({"experts.normalize_top_k", "experts.top_k"},
                  "warning: with top_k = 1, normalize_top_k = true makes the one weight 1, so the "
                  "router learns from the balance and z losses alone and not from the language "
                  "model's; write false unless Mixtral's mathematics at top-1 is meant");
  return checker.take();
}

}  // namespace switchyard
