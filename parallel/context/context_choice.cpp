#include "parallel/context/context_choice.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "parallel/context/context_attention.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// One context rank under a scheme, on a plan device with clocks.
class PlannedRank {
 public:
  PlannedRank(const ContextProblem& problem, const ParallelConfig& scheme,
              const SequenceSplit& split, int rank)
      : device_(make_plan_device({.rank_flops = scheme.context_split.rank_flops,
                                  .link_bytes = scheme.context_split.link_bytes})),
        mesh_(*device_, rank, split.num_ranks(), scheme),
        attention_(*device_, mesh_,
                   {problem.num_sequences, problem.num_heads, problem.num_kv_heads,
                    problem.head_dim, 1.0f},
                   problem.compute, split, problem.patterns, Progress::none) {
    const std::int64_t rows = problem.num_sequences * split.num_local(rank);
    queries_ = Tensor(*device_, Purpose::activation, problem.compute,
                      {rows, problem.num_heads * problem.head_dim});
    keys_ = Tensor(*device_, Purpose::activation, problem.compute,
                   {rows, problem.num_kv_heads * problem.head_dim});
    lse_ = Tensor(*device_, Purpose::activation, DType::f32, {rows, problem.num_heads});
    std::int64_t most = 0, directions = 0;
    for (const kernels::KeyPattern& pattern : problem.patterns) {
      most = std::max(most, pattern.chosen_blocks);
      directions = std::max(directions, num_directions(pattern));
    }
    if (directions > 0)
      directions_ =
          Tensor(*device_, Purpose::activation, DType::f32, {directions, problem.head_dim});
    if (most > 0)
      chosen_ =
          Tensor(*device_, Purpose::activation, DType::i32, {rows, problem.num_kv_heads * most});
    num_kv_heads_ = problem.num_kv_heads;
  }

  // Of one layer.
  PassCost forward(const kernels::KeyPattern& pattern) {
    return cost_of(
        [&] { attention_.forward(pattern, {}, inputs_of(pattern), queries_, lse_, {}); });
  }
  PassCost backward(const kernels::KeyPattern& pattern) {
    return cost_of([&] {
      attention_.backward(pattern, {}, TensorView{}, inputs_of(pattern), queries_, lse_, queries_,
                          {queries_, keys_, keys_}, {});
    });
  }
  std::int64_t memory_bytes() const {
    const MemoryLedger& memory = device_->memory();
    return memory.live(Purpose::communication) + memory.live(Purpose::workspace);
  }

 private:
  template <class Pass>
  PassCost cost_of(Pass pass) {
    const Work before = device_->profile().total_work();
    Stream& clock = device_->compute_stream();
    const TimePoint begin = clock.mark();
    pass();
    const Work after = device_->profile().total_work();
    const PlanTarget& target = device_->target();
    PassCost cost;
    cost.wire_bytes = after.wire_bytes - before.wire_bytes;
    cost.compute_seconds = (after.flops - before.flops) / target.rank_flops;
    cost.wire_seconds = cost.wire_bytes / target.link_bytes;
    cost.seconds = clock.seconds_between(begin, clock.mark());
    cost.is_hidden = cost.seconds <= cost.compute_seconds * (1 + rounding);
    return cost;
  }

  AttentionInputs inputs_of(const kernels::KeyPattern& pattern) const {
    AttentionInputs inputs{queries_, keys_, keys_};
    if (pattern.chosen_blocks > 0)
      inputs.chosen = chosen_->slice_cols(0, num_kv_heads_ * pattern.chosen_blocks);
    if (pattern.has_classes())
      inputs.directions = directions_->slice_rows(0, num_directions(pattern));
    return inputs;
  }
  // By which keys are hashed.
  static std::int64_t num_directions(const kernels::KeyPattern& pattern) {
    return pattern.hash_rounds * pattern.num_buckets / 2;
  }

  static constexpr double rounding = 1e-9;  // of the clocks' sums

  std::unique_ptr<Device> device_;
  Mesh mesh_;
  ContextAttention attention_;
  Tensor queries_;  // stand for all that has their shape: a plan reads and writes nothing
  Tensor keys_;
  Tensor lse_;
  Tensor chosen_;
  Tensor directions_;
  std::int64_t num_kv_heads_ = 0;
};

void add(PassCost& sum, const PassCost& cost, std::int64_t times) {
  const auto count = static_cast<double>(times);
  sum.wire_bytes += count * cost.wire_bytes;
  sum.compute_seconds += count * cost.compute_seconds;
  sum.wire_seconds += count * cost.wire_seconds;
  sum.seconds += count * cost.seconds;
  sum.is_hidden = sum.is_hidden && cost.is_hidden;
}

void keep_most(PassCost& most, const PassCost& cost) {
  most.wire_bytes = std::max(most.wire_bytes, cost.wire_bytes);
  most.compute_seconds = std::max(most.compute_seconds, cost.compute_seconds);
  most.wire_seconds = std::max(most.wire_seconds, cost.wire_seconds);
  most.seconds = std::max(most.seconds, cost.seconds);
  most.is_hidden = most.is_hidden && cost.is_hidden;
}

// All ranks where they are few, else this many at even distances from the first to the last:
// neighbours do nearly alike.
constexpr int most_planned_ranks = 16;
std::vector<int> planned_ranks(int num_ranks) {
  const int count = std::min(num_ranks, most_planned_ranks);
  std::vector<int> ranks;
  for (int i = 0; i < count; ++i) ranks.push_back(i * (num_ranks - 1) / std::max(count - 1, 1));
  return ranks;
}

// A layout of the context ranks alone, under one scheme.
ParallelConfig layout_of(const SchemeCost& scheme, const ContextConfig& config) {
  ParallelConfig layout;
  layout.data = 1;
  layout.context = scheme.ring * scheme.ulysses;
  layout.context_split = config;
  layout.context_split.ring = scheme.ring;
  layout.context_split.ulysses = scheme.ulysses;
  layout.context_split.method = scheme.method;
  return layout;
}

SequenceSplit split_of(const SchemeCost& scheme, const ContextProblem& problem,
                       const ContextConfig& config) {
  return {problem.length, scheme.ring, scheme.ulysses, config.layout, config.pad};
}

void fill_costs(SchemeCost& scheme, const ContextProblem& problem, const ContextConfig& config) {
  const ParallelConfig layout = layout_of(scheme, config);
  const SequenceSplit split = split_of(scheme, problem, config);
  std::map<kernels::KeyPattern, std::int64_t> num_layers;  // those of one pattern are alike
  for (const kernels::KeyPattern& pattern : problem.patterns) ++num_layers[pattern];
  for (const int rank : planned_ranks(split.num_ranks())) {
    PlannedRank planned(problem, layout, split, rank);
    PassCost forward;
    PassCost backward;
    for (const auto& [pattern, count] : num_layers) {
      add(forward, planned.forward(pattern), count);
      add(backward, planned.backward(pattern), count);
    }
    keep_most(scheme.forward, forward);
    keep_most(scheme.backward, backward);
    scheme.memory_bytes = std::max(scheme.memory_bytes, planned.memory_bytes());
  }
}

// Where there is nothing to choose.
ContextMethod only_method(const ContextConfig& config) {
  return config.exact ? ContextMethod::all_gather : ContextMethod::ring;
}

// The schemes to consider, legal or not.
std::vector<SchemeCost> candidates(const ParallelConfig& parallel) {
  const ContextConfig& config = parallel.context_split;
  std::vector<SchemeCost> schemes;
  for (std::int64_t ulysses = 1; ulysses <= parallel.context; ++ulysses) {
    const std::int64_t ring = parallel.context / ulysses;
    if (ring * ulysses != parallel.context) continue;
    if (config.ring > 0 && config.ring != ring) continue;
    if (config.ulysses > 0 && config.ulysses != ulysses) continue;
    for (const ContextMethod method : {ContextMethod::ring, ContextMethod::all_gather}) {
      const bool is_open = config.method == ContextMethod::automatic;
      if (!is_open && config.method != method) continue;
      // On one rank of the ring there is nothing to choose.
      const bool is_only = config.exact || ring == 1;
      if (is_open && is_only && method != only_method(config)) continue;
      schemes.push_back({.ring = ring, .ulysses = ulysses, .method = method});
    }
  }
  return schemes;
}

// The size of the context axis, where ring or ulysses alone gives it.
ParallelConfig with_degree(ParallelConfig parallel) {
  const ContextConfig& split = parallel.context_split;
  if (parallel.context == 1 && (split.ring > 0 || split.ulysses > 0))
    parallel.context =
        std::max<std::int64_t>(split.ring, 1) * std::max<std::int64_t>(split.ulysses, 1);
  return parallel;
}

std::vector<ConfigMistake> mistakes_of(const SchemeCost& scheme, const ContextProblem& problem,
                                       const ContextConfig& config) {
  if (auto wrong =
          head_mistakes(problem.num_heads, problem.num_kv_heads, scheme.ulysses, config.exact);
      !wrong.empty())
    return wrong;
  return SequenceSplit::mistakes(problem.length, scheme.ring, scheme.ulysses, config.layout,
                                 config.pad);
}

struct Schemes {
  std::vector<SchemeCost> legal;        // without their costs
  std::vector<ConfigMistake> mistakes;  // why the others are not, each once
};

Schemes schemes_of(const ContextProblem& problem, const ParallelConfig& parallel) {
  const ContextConfig& config = parallel.context_split;
  Schemes schemes;
  schemes.mistakes = method_mistakes(config);
  if (!schemes.mistakes.empty()) return schemes;
  for (SchemeCost scheme : candidates(parallel)) {
    const std::vector<ConfigMistake> wrong = mistakes_of(scheme, problem, config);
    for (const ConfigMistake& mistake : wrong)
      if (std::find(schemes.mistakes.begin(), schemes.mistakes.end(), mistake) ==
          schemes.mistakes.end())
        schemes.mistakes.push_back(mistake);
    if (wrong.empty()) schemes.legal.push_back(scheme);
  }
  if (schemes.legal.empty() && schemes.mistakes.empty())
    schemes.mistakes.push_back(
        {{"parallel.context", "parallel.context.ring", "parallel.context.ulysses"},
         fmt::format("ring {} x ulysses {} is not context {}", config.ring, config.ulysses,
                     parallel.context)});
  return schemes;
}

std::vector<SchemeCost> legal_schemes(const ContextProblem& problem,
                                      const ParallelConfig& parallel) {
  Schemes schemes = schemes_of(problem, parallel);
  if (schemes.legal.empty()) require_none(schemes.mistakes);
  return std::move(schemes.legal);
}

}  // namespace

std::string SchemeCost::text() const {
  if (ring == 1) return fmt::format("ulysses {}", ulysses);
  const std::string rows = fmt::format("{} {}", name_of(method), ring);
  return ulysses == 1 ? rows : fmt::format("{} x ulysses {}", rows, ulysses);
}

std::vector<SchemeCost> scheme_costs(const ContextProblem& problem,
                                     const ParallelConfig& parallel) {
  std::vector<SchemeCost> schemes = legal_schemes(problem, parallel);
  for (SchemeCost& scheme : schemes) fill_costs(scheme, problem, parallel.context_split);
  return schemes;
}

std::vector<ConfigMistake> method_mistakes(const ContextConfig& config) {
  if (!config.exact || config.method != ContextMethod::ring) return {};
  return {{{"parallel.context.method", "numerics.exact"},
           "method ring adds up every result hop by hop, so that its last bits depend on who holds "
           "which positions, and numerics.exact forbids that; write auto or all_gather, or "
           "numerics.exact: false"}};
}

std::vector<ConfigMistake> context_mistakes(const ContextProblem& problem,
                                            const ParallelConfig& parallel) {
  const Schemes schemes = schemes_of(problem, with_degree(parallel));
  return schemes.legal.empty() ? schemes.mistakes : std::vector<ConfigMistake>();
}

ParallelConfig with_chosen_context(const ContextProblem& problem, const ParallelConfig& parallel) {
  ParallelConfig chosen = with_degree(parallel);
  ContextConfig& split = chosen.context_split;
  if (chosen.context < 1) return chosen;  // Mesh::resolved says what is wrong
  std::vector<SchemeCost> schemes = legal_schemes(problem, chosen);
  if (schemes.size() > 1)
    for (SchemeCost& scheme : schemes) fill_costs(scheme, problem, split);
  const SchemeCost& best = *std::min_element(
      schemes.begin(), schemes.end(),
      [](const SchemeCost& a, const SchemeCost& b) { return a.seconds() < b.seconds(); });
  split.ring = best.ring;
  split.ulysses = best.ulysses;
  split.method = best.method;
  return chosen;
}

}  // namespace switchyard
