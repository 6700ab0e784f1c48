// The oracles of choices of experts, in plain double-precision loops: groups and a bias, plans and
// assignments over a sequence, given loads. Legend: L tokens of a sequence, E experts, k choices. A
// choice is a list of experts for each token, best first, -1: none.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "tensor/random.hpp"

namespace switchyard::test {

using Choices = std::vector<std::int64_t>;

// The k largest, ties to the lower index.
inline Choices largest_of(const std::vector<double>& row, std::size_t k) {
  Choices order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
  });
  order.resize(k);
  return order;
}

struct ReferenceGroups {
  std::size_t count = 1, top = 1;
  bool by_two = false;  // the sum of a group's best two, else its best
};

// Of one token: by score + bias, from the best groups alone.
inline Choices choose_in_groups(std::vector<double> scores, const std::vector<double>& bias,
                                const ReferenceGroups& groups, std::size_t k) {
  for (std::size_t e = 0; e < bias.size(); ++e) scores[e] += bias[e];
  const std::size_t size = scores.size() / groups.count;
  std::vector<double> of_group;
  for (std::size_t g = 0; g < groups.count; ++g) {
    std::vector<double> group(scores.begin() + static_cast<std::ptrdiff_t>(g * size),
                              scores.begin() + static_cast<std::ptrdiff_t>((g + 1) * size));
    std::sort(group.rbegin(), group.rend());
    of_group.push_back(groups.by_two && size > 1 ? group[0] + group[1] : group[0]);
  }
  const Choices best = largest_of(of_group, groups.top);
  for (std::size_t e = 0; e < scores.size(); ++e)
    if (std::find(best.begin(), best.end(), static_cast<std::int64_t>(e / size)) == best.end())
      scores[e] = -std::numeric_limits<double>::infinity();
  return largest_of(scores, k);
}

// Sinkhorn's plan of one sequence, logits [L, E], far beyond convergence.
inline std::vector<double> reference_plan(const std::vector<double>& logits,
                                          std::size_t num_experts) {
  const std::size_t length = logits.size() / num_experts;
  std::vector<double> plan;
  for (const double logit : logits) plan.push_back(std::exp(logit));
  constexpr int turns = 3000;
  for (int turn = 0; turn < turns; ++turn) {
    for (std::size_t e = 0; e < num_experts; ++e) {
      double sum = 0;
      for (std::size_t t = 0; t < length; ++t) sum += plan[t * num_experts + e];
      for (std::size_t t = 0; t < length; ++t)
        plan[t * num_experts + e] *=
            static_cast<double>(length) / static_cast<double>(num_experts) / sum;
    }
    for (std::size_t t = 0; t < length; ++t) {
      double* row = &plan[t * num_experts];
      const double sum = std::accumulate(row, row + num_experts, 0.0);
      std::for_each(row, row + num_experts, [&](double& element) { element /= sum; });
    }
  }
  return plan;
}

// The balanced assignment with the largest sum of scores, as a flow of the least cost on a graph of
// all its edges: source, tokens, experts, the pool of places beyond floor(L k / E), sink.
class ReferenceAssignment {
 public:
  ReferenceAssignment(const std::vector<double>& scores, std::size_t num_experts, std::size_t k)
      : num_experts_(num_experts), length_(scores.size() / num_experts), top_k_(k) {
    const std::size_t pool = first_expert() + num_experts, sink = pool + 1;
    distance_.resize(sink + 1);
    const std::size_t slots = length_ * k;
    for (std::size_t t = 0; t < length_; ++t) {
      add(0, 1 + t, k, 0);
      for (std::size_t e = 0; e < num_experts; ++e)
        add(1 + t, first_expert() + e, 1, -scores[t * num_experts + e]);
    }
    for (std::size_t e = 0; e < num_experts; ++e) {
      add(first_expert() + e, sink, slots / num_experts, 0);
      add(first_expert() + e, pool, 1, 0);
    }
    add(pool, sink, slots % num_experts, 0);
    while (augment(sink)) {
    }
  }

  double cost() const { return -cost_; }
  bool has(std::size_t token, std::size_t expert) const {
    for (const Edge& edge : edges_)
      if (edge.from == 1 + token && edge.to == first_expert() + expert && edge.is_forward)
        return edge.room == 0;
    return false;
  }

 private:
  struct Edge {
    std::size_t from, to, room;
    double cost;
    bool is_forward;
  };
  std::size_t first_expert() const { return 1 + length_; }
  void add(std::size_t from, std::size_t to, std::size_t room, double cost) {
    edges_.push_back({from, to, room, cost, true});
    edges_.push_back({to, from, 0, -cost, false});
  }
  bool augment(std::size_t sink) {
    constexpr double far = std::numeric_limits<double>::infinity();
    std::fill(distance_.begin(), distance_.end(), far);
    std::vector<std::size_t> by(distance_.size());
    distance_[0] = 0;
    for (bool changed = true; changed;) {
      changed = false;
      for (std::size_t i = 0; i < edges_.size(); ++i) {
        const Edge& edge = edges_[i];
        if (edge.room == 0 || distance_[edge.from] + edge.cost >= distance_[edge.to] - 1e-12)
          continue;
        distance_[edge.to] = distance_[edge.from] + edge.cost;
        by[edge.to] = i;
        changed = true;
      }
    }
    if (distance_[sink] == far) return false;
    cost_ += distance_[sink];
    for (std::size_t node = sink; node != 0; node = edges_[by[node]].from) {
      --edges_[by[node]].room;
      ++edges_[by[node] ^ 1].room;
    }
    return true;
  }

  std::size_t num_experts_, length_, top_k_;
  std::vector<Edge> edges_;
  std::vector<double> distance_;
  double cost_ = 0;
};

// A token's experts of a set, best first; -1 where there are fewer than k, and the best k of more.
inline Choices best_first(std::vector<std::int64_t> experts, const double* scores, std::size_t k) {
  std::stable_sort(experts.begin(), experts.end(),
                   [&](std::int64_t a, std::int64_t b) { return scores[a] > scores[b]; });
  experts.resize(k, -1);
  return experts;
}

// Expert choice of one sequence: each expert takes tokens_of_expert tokens.
inline Choices reference_expert_choice(const std::vector<double>& scores, std::size_t num_experts,
                                       std::size_t tokens_of_expert, std::size_t k) {
  const std::size_t length = scores.size() / num_experts;
  std::vector<Choices> experts_of(length);
  for (std::size_t e = 0; e < num_experts; ++e) {
    std::vector<double> column;
    for (std::size_t t = 0; t < length; ++t) column.push_back(scores[t * num_experts + e]);
    for (const std::int64_t t : largest_of(column, tokens_of_expert))
      experts_of[static_cast<std::size_t>(t)].push_back(static_cast<std::int64_t>(e));
  }
  Choices all;
  for (std::size_t t = 0; t < length; ++t)
    for (const std::int64_t e : best_first(experts_of[t], &scores[t * num_experts], k))
      all.push_back(e);
  return all;
}

inline Choices reference_assignment(const std::vector<double>& scores, std::size_t num_experts,
                                    std::size_t k) {
  const ReferenceAssignment assignment(scores, num_experts, k);
  Choices all;
  for (std::size_t t = 0; t < scores.size() / num_experts; ++t) {
    Choices experts;
    for (std::size_t e = 0; e < num_experts; ++e)
      if (assignment.has(t, e)) experts.push_back(static_cast<std::int64_t>(e));
    for (const std::int64_t e : best_first(experts, &scores[t * num_experts], k)) all.push_back(e);
  }
  return all;
}

// k experts drawn one after the other from those that are left.
inline Choices reference_hash(std::int32_t token, RandomKey key, std::size_t num_experts,
                              std::size_t k) {
  Choices left(num_experts), chosen;
  std::iota(left.begin(), left.end(), 0);
  for (std::size_t j = 0; j < k; ++j) {
    const std::uint64_t word = random_words(key, static_cast<std::uint64_t>(token), j / 4)[j % 4];
    const auto at = left.begin() + static_cast<std::ptrdiff_t>(word * left.size() >> 32);
    chosen.push_back(*at);
    left.erase(at);
  }
  return chosen;
}

// Token number n under a given load: the experts at frac(n / golden ratio) + j of the line that the
// shares cut.
inline Choices reference_load(std::uint64_t number, const std::vector<double>& shares,
                              std::size_t k) {
  const auto turn = static_cast<std::uint32_t>(number * 2654435769u);
  Choices chosen;
  for (std::size_t j = 0; j < k; ++j) {
    double point = static_cast<double>(turn) / 4294967296.0 + static_cast<double>(j);
    std::size_t e = 0;
    for (; e + 1 < shares.size() && point >= shares[e]; ++e) point -= shares[e];
    chosen.push_back(static_cast<std::int64_t>(e));
  }
  return chosen;
}

}  // namespace switchyard::test
