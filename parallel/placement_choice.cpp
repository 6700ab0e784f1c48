#include "parallel/placement_choice.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>
#include <tuple>
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
  double most = 0, total = 0;
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    double rows = 0;
    for (const std::int64_t expert : placement.experts_of(rank))
      rows += static_cast<double>(rows_of_expert[static_cast<std::size_t>(expert)]) /
              static_cast<double>(placement.places_of(expert).size());
    most = std::max(most, rows);
    total += rows;
  }
  return total == 0 ? 1 : most * placement.num_ranks() / total;
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

namespace {

// How many places each expert gets.
std::vector<std::int64_t> places_by_load(std::span<const std::int64_t> rows_of_expert,
                                         int num_ranks, std::int64_t num_replicas) {
  std::vector<std::int64_t> num_places(rows_of_expert.size(), 1);
  for (std::int64_t i = 0; i < num_replicas; ++i) {
    std::size_t hottest = num_places.size();
    for (std::size_t e = 0; e < num_places.size(); ++e)
      if (num_places[e] < num_ranks &&
          (hottest == num_places.size() ||
           rows_of_expert[e] * num_places[hottest] > rows_of_expert[hottest] * num_places[e]))
        hottest = e;
    if (hottest == num_places.size()) break;
    ++num_places[hottest];
  }
  return num_places;
}

}  // namespace

std::vector<std::int64_t> order_with_replicas(std::span<const std::int64_t> rows_of_expert,
                                              int num_ranks, std::int64_t num_replicas) {
  const std::vector<std::int64_t> num_places =
      places_by_load(rows_of_expert, num_ranks, num_replicas);
  struct Place {
    double rows;
    std::int64_t expert;
  };
  std::vector<Place> places;
  for (std::size_t e = 0; e < num_places.size(); ++e)
    for (std::int64_t i = 0; i < num_places[e]; ++i)
      places.push_back({static_cast<double>(rows_of_expert[e]) / static_cast<double>(num_places[e]),
                        static_cast<std::int64_t>(e)});
  std::ranges::stable_sort(places, std::ranges::greater{}, &Place::rows);
  struct Rank {
    double rows = 0;
    std::int64_t room = 0;
    std::vector<std::int64_t> experts = {};
  };
  std::vector<Rank> ranks(static_cast<std::size_t>(num_ranks));
  const std::int64_t total = std::ssize(places);
  for (std::int64_t r = 0; r < num_ranks; ++r)
    ranks[static_cast<std::size_t>(r)].room = (r + 1) * total / num_ranks - r * total / num_ranks;
  for (const Place& place : places) {
    // Should only ranks with room be left that have the expert, one of them has it twice, and the
    // placement then leaves one out.
    const auto cost = [&](const Rank& rank) {
      return std::tuple(rank.room == 0,
                        std::ranges::find(rank.experts, place.expert) != rank.experts.end(),
                        rank.rows);
    };
    Rank& taker = *std::ranges::min_element(ranks, {}, cost);
    taker.rows += place.rows;
    --taker.room;
    taker.experts.push_back(place.expert);
  }
  std::vector<std::int64_t> order;
  for (Rank& rank : ranks) {
    std::ranges::sort(rank.experts);
    order.insert(order.end(), rank.experts.begin(), rank.experts.end());
  }
  return order;
}

}  // namespace switchyard
