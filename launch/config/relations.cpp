#include "launch/config/relations.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string_view>

#include "cmake/built_with.hpp"
#include "data/mixture.hpp"
#include "experts/dispatch/dispatch_mistakes.hpp"
#include "experts/router/router_mistakes.hpp"
#include "launch/config/model_relations.hpp"
#include "launch/config/relation_checker.hpp"
#include "tensor/error.hpp"
#include "trainer/batch_layout.hpp"

namespace switchyard {
namespace {

void check_experts(RelationChecker& checker, const Config& config) {
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
  if (config.model.feed_forward == FeedForwardKind::none && experts.every == 1 &&
      experts.first_dense == 0 && checker.knows({"model.feed_forward"}))
    checker.blame({"model.feed_forward", "experts.num_experts", "experts.every"},
                  "feed_forward = none counts only for layers without experts, and all have some; "
                  "leave it out, or write num_experts 0");
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

void check_replicas(RelationChecker& checker, const PlacementConfig& placement) {
  if (!checker.knows({"experts.placement.replicas"}) || placement.replicas == 0) return;
  if (checker.knows({"experts.placement.every"}) && placement.every == 0)
    checker.blame({"experts.placement.replicas", "experts.placement.every"},
                  "only a run whose experts move finds those that should have replicas; write "
                  "every, or leave replicas out and name experts several times in order");
  if (checker.knows({"experts.placement.order"}) && !placement.order.empty())
    checker.blame({"experts.placement.replicas", "experts.placement.order"},
                  "order says already how many places there are; leave replicas or order out");
}

void check_placement(RelationChecker& checker, const Config& config) {
  check_replicas(checker, config.experts.placement);
  if (!checker.knows({"experts.num_experts", "experts.placement.order"})) return;
  std::vector<std::int64_t> order = config.experts.placement.order;
  if (order.empty()) return;
  const std::int64_t num_experts = config.experts.num_experts;
  std::ranges::sort(order);
  const bool are_experts = order.front() >= 0 && order.back() < num_experts;
  order.erase(std::unique(order.begin(), order.end()), order.end());
  if (!are_experts || std::ssize(order) != num_experts)
    checker.blame({"experts.placement.order", "experts.num_experts"},
                  fmt::format("order has to name each of the num_experts = {} experts, from 0 to "
                              "{}, once or (with replicas) several times, or be left out",
                              num_experts, num_experts - 1));
}

void check_data(RelationChecker& checker, const Config& config) {
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

void blame_known(RelationChecker& checker, std::vector<ConfigMistake> mistakes) {
  for (ConfigMistake& mistake : mistakes)
    if (std::all_of(mistake.keys.begin(), mistake.keys.end(),
                    [&](std::string_view path) { return checker.knows({path}); }))
      checker.blame(mistake.keys, std::move(mistake.text));
}

// Counts of a pool of tokens are 32-bit numbers.
void check_balance_scope(RelationChecker& checker, const Config& config) {
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

void check_start(RelationChecker& checker, const CheckpointConfig& checkpoint) {
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

void check_batch(RelationChecker& checker, const TrainConfig& train) {
  if (!checker.knows({"train.global_batch", "train.micro_batch"})) return;
  if (train.micro_batch == 0 || train.global_batch % train.micro_batch == 0) return;
  checker.blame({"train.micro_batch", "train.global_batch"},
                fmt::format("global_batch / micro_batch = {} / {} is not whole; legal micro_batch: "
                            "0, {}",
                            train.global_batch, train.micro_batch, divisors(train.global_batch)));
}

void check_schedule(RelationChecker& checker, const Config& config) {
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

void check_wire(RelationChecker& checker, const Config& config) {
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

void check_exact(RelationChecker& checker, const Config& config) {
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
  if (checker.knows({"experts.dispatch.return"}) &&
      config.experts.dispatch.returns == DispatchReturn::summed)
    checker.blame({"experts.dispatch.return", "numerics.exact"},
                  "return: summed adds up what a node's experts return for a token, and which "
                  "these are follows from the layout, which numerics.exact forbids; write rows, or "
                  "numerics.exact: false");
  if (checker.knows({"experts.balance_scope"}) &&
      config.experts.balance_scope != BalanceScope::sequence)
    checker.blame(
        {"experts.balance_scope", "numerics.exact"},
        fmt::format("balance_scope {} takes its means over the sequences that share a micro-step, "
                    "which follow from the layout, and numerics.exact forbids that; write sequence "
                    "(or bias_rate, for a balance over all), or numerics.exact: false",
                    name_of(config.experts.balance_scope)));
}

void check_layers(RelationChecker& checker, std::string_view path,
                  const std::vector<std::int64_t>& layers, std::int64_t num_layers) {
  if (!checker.knows({path, "model.num_layers"})) return;
  for (const std::int64_t layer : layers)
    if (layer >= num_layers) {
      checker.blame({path, "model.num_layers"},
                    fmt::format("there is no layer {}: num_layers is {}, so the layers are 0 to {}",
                                layer, num_layers, num_layers - 1));
      return;
    }
}

void check_activations(RelationChecker& checker, const Config& config) {
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

void check_trace(RelationChecker& checker, const Config& config) {
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
void check_batch_of_ranks(RelationChecker& checker, const Config& config, std::int64_t data) {
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
  RelationChecker checker(loaded, is_unknown);
  const Config& config = loaded.config;
  if (!built_with_cuda && checker.knows({"run.device"}) && config.run.device == RunDevice::cuda)
    checker.blame({"run.device"},
                  "this build has no cuda device; write cpu or auto, or build it where the CUDA "
                  "toolkit is installed (cmake --preset cuda)");
  if (checker.knows({"parallel.backend", "run.device"}) &&
      config.parallel.backend == ExchangeBackend::nccl && config.run.device == RunDevice::cpu)
    checker.blame(
        {"parallel.backend", "run.device"},
        "backend = nccl carries tensors between cards, and run.device is cpu; write auto, "
        "or run.device: cuda");
  check_data(checker, config);
  check_model(checker, config.model);
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
  RelationChecker checker(loaded, nothing_unknown);
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
  RelationChecker checker(loaded, nothing_unknown);
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
  RelationChecker checker(loaded, nothing_unknown);
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
