#include "parallel/context/context_choice.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "parallel/context/context_attention.hpp"
#include "parallel/context/head_exchange.hpp"
#include "parallel/context/ring_attention.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr double forward_flops = 4;  // a pair and head_dim
constexpr double backward_flops = 10;
constexpr double gradient_bytes = 4;

using Held = std::vector<std::vector<PositionRange>>;

// The seconds of what a rank does in one direction of one layer.
class CostOfLayer {
 public:
  CostOfLayer(const ContextProblem& problem, const ParallelConfig& parallel,
              const SequenceSplit& split, bool backward)
      : p_(problem), config_(parallel.context_split), split_(split), backward_(backward) {}

  PassCost full_ring() {
    exchange_heads();
    const std::int64_t num_ranks = split_.ring();
    const Held held = by_ring();
    const double block = static_cast<double>(p_.num_sequences * split_.max_ring_local());
    const double keys = num_ranks > 1 ? block * 2 * key_cols() * bytes() : 0;
    const double gradients = num_ranks > 1 ? block * 2 * key_cols() * gradient_bytes : 0;
    if (!backward_) {
      for (std::int64_t step = 0; step < num_ranks; ++step)
        overlap(slowest(held, step), step + 1 < num_ranks ? keys : 0);
      return cost_;
    }
    // The own block in two parts (RingAttention), the others between them.
    const double own = slowest(held, 0);
    const double first = num_ranks > 1 ? slowest_first(held) : 0;
    overlap(first, keys);
    for (std::int64_t step = 1; step < num_ranks; ++step)
      overlap(slowest(held, step), (step + 1 < num_ranks ? keys : 0) + (step > 1 ? gradients : 0));
    overlap(own - first, gradients);
    return cost_;
  }

  PassCost gathered(std::int64_t window, bool stays_with_rows) {
    if (!stays_with_rows) exchange_heads();
    const Held held = stays_with_rows ? by_context() : by_ring();
    const double cols =
        stays_with_rows ? static_cast<double>(p_.num_kv_heads * p_.head_dim) : key_cols();
    std::vector<std::vector<PositionRange>> seen;
    for (const std::vector<PositionRange>& segments : held)
      seen.push_back(kernels::seen_positions(segments, window));
    double most_sent = 0;
    double most_pairs = 0;
    for (std::size_t rank = 0; rank < held.size(); ++rank) {
      double given = 0;
      for (std::size_t other = 0; other < held.size(); ++other)
        if (other != rank) given += common_positions(held[rank], seen[other]);
      const double taken =
          static_cast<double>(num_positions(seen[rank]) - num_positions(held[rank]));
      const double sent = given * bytes() + (backward_ ? taken * gradient_bytes : 0);
      most_sent = std::max(most_sent, sent * 2 * cols * static_cast<double>(p_.num_sequences));
      most_pairs = std::max(most_pairs, pairs(held[rank], seen[rank], window));
    }
    expose(most_sent);
    overlap(seconds_of(most_pairs, stays_with_rows ? static_cast<double>(p_.num_heads) : heads()),
            0);
    return cost_;
  }

 private:
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
  double bytes() const { return static_cast<double>(p_.element_bytes); }
  double heads() const {  // of a rank, where heads are exchanged
    return static_cast<double>(HeadExchange::heads_each(p_.num_heads, split_.ulysses()));
  }
  double key_cols() const {
    return static_cast<double>(HeadExchange::heads_each(p_.num_kv_heads, split_.ulysses()) *
                               p_.head_dim);
  }
  Held by_ring() const {
    Held held;
    for (int rank = 0; rank < split_.ring(); ++rank) held.push_back(split_.ring_segments(rank));
    return held;
  }
  Held by_context() const {
    Held held;
    for (int rank = 0; rank < split_.num_ranks(); ++rank) held.push_back(split_.segments(rank));
    return held;
  }
  double pairs(const std::vector<PositionRange>& queries, const std::vector<PositionRange>& keys,
               std::int64_t window) const {
    return kernels::count_pairs(
        {.queries = queries, .keys = keys, .window = window, .num_sequences = p_.num_sequences});
  }
  static double common_positions(const std::vector<PositionRange>& a,
                                 const std::vector<PositionRange>& b) {
    std::int64_t count = 0;
    for (const PositionRange& one : a)
      for (const PositionRange& other : b)
        count += std::max<std::int64_t>(
            std::min(one.end(), other.end()) - std::max(one.begin, other.begin), 0);
    return static_cast<double>(count);
  }
  // Of a step of the ring, on the rank that computes most.
  double slowest(const Held& held, std::int64_t step) const {
    const std::int64_t num_ranks = std::ssize(held);
    double most = 0;
    for (std::int64_t rank = 0; rank < num_ranks; ++rank)
      most = std::max(
          most, pairs(held[index(rank)], held[index((rank + num_ranks - step) % num_ranks)], 0));
    return seconds_of(most, heads());
  }
  double slowest_first(const Held& all) const {
    double most = 0;
    for (const std::vector<PositionRange>& held : all)
      most = std::max(
          most,
          pairs(slice_of(held, 0,
                         RingAttention::num_first_queries(num_positions(held), p_.element_bytes)),
                held, 0));
    return seconds_of(most, heads());
  }
  double seconds_of(double num_pairs, double num_heads) const {
    return (backward_ ? backward_flops : forward_flops) * static_cast<double>(p_.head_dim) *
           num_heads * num_pairs / config_.rank_flops;
  }

  void overlap(double compute_seconds, double sent) {
    const double wire = sent / config_.link_bytes;
    cost_.wire_bytes += sent;
    cost_.compute_seconds += compute_seconds;
    cost_.wire_seconds += wire;
    cost_.seconds += std::max(compute_seconds, wire);
    if (wire > compute_seconds) cost_.is_hidden = false;
  }
  void expose(double sent) {
    if (sent > 0) overlap(0, sent);
  }

  // There and back, of the rank with most rows (HeadExchange).
  void exchange_heads() {
    const double ranks = split_.ulysses();
    if (ranks == 1) return;
    const double query_cols = heads() * static_cast<double>(p_.head_dim);
    const double own = static_cast<double>(p_.num_sequences * split_.max_local());
    const double others =
        static_cast<double>(p_.num_sequences * (split_.max_ring_local() - split_.max_local()));
    const bool replicated = p_.num_kv_heads < split_.ulysses();
    if (backward_) {
      expose((ranks - 1) * own *
             ((2 * query_cols + 2 * key_cols()) * bytes() + 2 * heads() * gradient_bytes));
      expose(others *
             (query_cols * bytes() + 2 * key_cols() * (replicated ? gradient_bytes : bytes())));
    } else {
      expose((ranks - 1) * own * (query_cols + 2 * key_cols()) * bytes());
      expose(others * (query_cols * bytes() + heads() * gradient_bytes));
    }
  }

  const ContextProblem& p_;
  const ContextConfig& config_;
  const SequenceSplit& split_;
  bool backward_;
  PassCost cost_;
};

void add(PassCost& sum, const PassCost& cost) {
  sum.wire_bytes += cost.wire_bytes;
  sum.compute_seconds += cost.compute_seconds;
  sum.wire_seconds += cost.wire_seconds;
  sum.seconds += cost.seconds;
  sum.is_hidden = sum.is_hidden && cost.is_hidden;
}

PassCost cost_of(const ContextProblem& problem, const ParallelConfig& parallel,
                 const SequenceSplit& split, ContextMethod method, bool backward) {
  PassCost sum;
  std::map<std::int64_t, PassCost> costs;  // of a layer, by window: layers are alike
  for (const std::int64_t window : problem.windows) {
    if (!costs.contains(window)) {
      CostOfLayer layer(problem, parallel, split, backward);
      costs[window] = window == 0 && method == ContextMethod::ring
                          ? layer.full_ring()
                          : layer.gathered(window, halo_stays_with_rows(split, window));
    }
    add(sum, costs[window]);
  }
  return sum;
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
      if (is_open && ring == 1 && method != ContextMethod::ring) continue;
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
  if (auto wrong = head_mistakes(problem.num_heads, problem.num_kv_heads, scheme.ulysses);
      !wrong.empty())
    return wrong;
  return SequenceSplit::mistakes(problem.length, scheme.ring, scheme.ulysses, config.layout,
                                 config.pad);
}

struct Schemes {
  std::vector<SchemeCost> legal;
  std::vector<ConfigMistake> mistakes;  // why the others are not, each once
};

Schemes schemes_of(const ContextProblem& problem, const ParallelConfig& parallel) {
  const ContextConfig& config = parallel.context_split;
  Schemes schemes;
  for (SchemeCost scheme : candidates(parallel)) {
    const std::vector<ConfigMistake> wrong = mistakes_of(scheme, problem, config);
    for (const ConfigMistake& mistake : wrong)
      if (std::find(schemes.mistakes.begin(), schemes.mistakes.end(), mistake) ==
          schemes.mistakes.end())
        schemes.mistakes.push_back(mistake);
    if (!wrong.empty()) continue;
    const SequenceSplit split(problem.length, scheme.ring, scheme.ulysses, config.layout,
                              config.pad);
    scheme.forward = cost_of(problem, parallel, split, scheme.method, false);
    scheme.backward = cost_of(problem, parallel, split, scheme.method, true);
    schemes.legal.push_back(scheme);
  }
  if (schemes.legal.empty() && schemes.mistakes.empty())
    schemes.mistakes.push_back(
        {{"parallel.context", "parallel.context.ring", "parallel.context.ulysses"},
         fmt::format("ring {} x ulysses {} is not context {}", config.ring, config.ulysses,
                     parallel.context)});
  return schemes;
}

}  // namespace

std::string SchemeCost::text() const {
  if (ring == 1) return fmt::format("ulysses {}", ulysses);
  const std::string rows = fmt::format("{} {}", name_of(method), ring);
  return ulysses == 1 ? rows : fmt::format("{} x ulysses {}", rows, ulysses);
}

std::vector<SchemeCost> scheme_costs(const ContextProblem& problem,
                                     const ParallelConfig& parallel) {
  Schemes schemes = schemes_of(problem, parallel);
  if (schemes.legal.empty()) require_none(schemes.mistakes);
  return std::move(schemes.legal);
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
  const std::vector<SchemeCost> costs = scheme_costs(problem, chosen);
  const SchemeCost& best = *std::min_element(
      costs.begin(), costs.end(),
      [](const SchemeCost& a, const SchemeCost& b) { return a.seconds() < b.seconds(); });
  split.ring = best.ring;
  split.ulysses = best.ulysses;
  split.method = best.method;
  return chosen;
}

}  // namespace switchyard
