#include "parallel/placement_choice.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Places by rank, with what is known of the rows there.
class Exchange {
 public:
  Exchange(const Placement& placement, std::span<const std::int64_t> rows_of_expert)
      : rows_of_expert_(rows_of_expert) {
    for (int rank = 0; rank < placement.num_ranks(); ++rank) {
      const std::span<const std::int64_t> experts = placement.experts_of(rank);
      experts_of_rank_.emplace_back(experts.begin(), experts.end());
      rows_of_rank_.push_back(0);
      for (const std::int64_t expert : experts) rows_of_rank_.back() += rows_of(expert);
    }
  }

  // Exchanges the best pair; false if none takes more than `least` rows off the fullest rank.
  bool exchange_one(std::int64_t least) {
    const std::size_t fullest =
        static_cast<std::size_t>(std::ranges::max_element(rows_of_rank_) - rows_of_rank_.begin());
    std::int64_t fewest = rows_of_rank_[fullest] - std::max<std::int64_t>(least, 1) + 1;
    std::optional<Pair> best;
    for (std::size_t other = 0; other < rows_of_rank_.size(); ++other) {
      if (other == fullest) continue;
      for (std::int64_t& given : experts_of_rank_[fullest])
        for (std::int64_t& taken : experts_of_rank_[other]) {
          const std::int64_t difference = rows_of(given) - rows_of(taken);
          const std::int64_t fuller =
              std::max(rows_of_rank_[fullest] - difference, rows_of_rank_[other] + difference);
          if (fuller >= fewest) continue;
          fewest = fuller;
          best = {&given, &taken, other, difference};
        }
    }
    if (!best) return false;
    std::swap(*best->given, *best->taken);
    rows_of_rank_[fullest] -= best->difference;
    rows_of_rank_[best->other] += best->difference;
    return true;
  }

  const std::vector<std::vector<std::int64_t>>& experts_of_rank() const { return experts_of_rank_; }

 private:
  struct Pair {
    std::int64_t* given;
    std::int64_t* taken;
    std::size_t other;
    std::int64_t difference;
  };
  std::int64_t rows_of(std::int64_t expert) const {
    return rows_of_expert_[static_cast<std::size_t>(expert)];
  }

  std::span<const std::int64_t> rows_of_expert_;
  std::vector<std::vector<std::int64_t>> experts_of_rank_;
  std::vector<std::int64_t> rows_of_rank_;
};

// The same experts on each rank, those that were there before at the places that they had.
std::vector<std::vector<std::int64_t>> at_old_places(
    const Placement& now, std::vector<std::vector<std::int64_t>> experts_of_rank) {
  for (int rank = 0; rank < now.num_ranks(); ++rank) {
    std::vector<std::int64_t>& experts = experts_of_rank[static_cast<std::size_t>(rank)];
    const std::span<const std::int64_t> before = now.experts_of(rank);
    std::ranges::sort(experts);
    std::vector<std::int64_t> placed(experts.size(), -1), arrived;
    for (const std::int64_t expert : experts) {
      const auto old = std::ranges::find(before, expert);
      if (old == before.end())
        arrived.push_back(expert);
      else
        placed[static_cast<std::size_t>(old - before.begin())] = expert;
    }
    auto next = arrived.begin();
    for (std::int64_t& expert : placed)
      if (expert < 0) expert = *next++;
    experts = std::move(placed);
  }
  return experts_of_rank;
}

}  // namespace

double rank_imbalance(const Placement& placement, std::span<const std::int64_t> rows_of_expert) {
  std::int64_t most = 0, total = 0;
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    std::int64_t rows = 0;
    for (const std::int64_t expert : placement.experts_of(rank))
      rows += rows_of_expert[static_cast<std::size_t>(expert)];
    most = std::max(most, rows);
    total += rows;
  }
  if (total == 0) return 1;
  return static_cast<double>(most) * placement.num_ranks() / static_cast<double>(total);
}

Placement balanced_placement(const Placement& now, std::span<const std::int64_t> rows_of_expert,
                             double least_gain) {
  expect(std::ssize(rows_of_expert) == now.num_experts() && !now.has_replicas(),
         "the rows of each expert, each of which has one place");
  const std::int64_t total =
      std::accumulate(rows_of_expert.begin(), rows_of_expert.end(), std::int64_t{0});
  const auto least = static_cast<std::int64_t>(
      std::ceil(least_gain * static_cast<double>(total) / static_cast<double>(now.num_ranks())));
  Exchange exchange(now, rows_of_expert);
  // Each exchange takes rows off the fullest rank, so it ends; the limit bounds the time.
  for (std::int64_t i = 0; i < 2 * now.num_experts(); ++i)
    if (!exchange.exchange_one(least)) break;
  return {now.num_experts(), at_old_places(now, exchange.experts_of_rank())};
}

}  // namespace switchyard
