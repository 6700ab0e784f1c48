#include "parallel/placement_choice.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
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
      : rows_of_expert_(rows_of_expert), num_places_(rows_of_expert.size()) {
    for (std::size_t expert = 0; expert < num_places_.size(); ++expert)
      num_places_[expert] = std::ssize(placement.places_of(static_cast<std::int64_t>(expert)));
    for (int rank = 0; rank < placement.num_ranks(); ++rank) {
      const std::span<const std::int64_t> experts = placement.experts_of(rank);
      experts_of_rank_.emplace_back(experts.begin(), experts.end());
    }
    count_rows();
  }

  // Takes the best step; false if none takes at least `least` rows off the fullest rank. A rank
  // whose rows change has fewer afterwards than the fullest had, so steps come to an end.
  bool improve(double least) {
    fullest_ =
        static_cast<std::size_t>(std::ranges::max_element(rows_of_rank_) - rows_of_rank_.begin());
    most_ = rows_of_rank_[fullest_] - std::max(least, 1.0);
    best_ = {};
    for (std::size_t rank = 0; rank < experts_of_rank_.size(); ++rank) {
      if (rank != fullest_) consider_pairs(rank);
      consider_replicas(rank);
    }
    if (best_.place == nullptr) return false;
    if (best_.other != nullptr) {
      std::swap(*best_.place, *best_.other);
    } else {
      --places_of(*best_.place);
      ++places_of(best_.expert);
      *best_.place = best_.expert;
    }
    count_rows();
    return true;
  }

  const std::vector<std::vector<std::int64_t>>& experts_of_rank() const { return experts_of_rank_; }

 private:
  // Two places exchange their experts, or a place gets another one: then `other` is null.
  struct Step {
    std::int64_t* place = nullptr;
    std::int64_t* other = nullptr;
    std::int64_t expert = 0;
  };

  // Of the fullest rank with `rank`: neither may then have an expert twice.
  void consider_pairs(std::size_t rank) {
    for (std::int64_t& given : experts_of_rank_[fullest_]) {
      if (also_holds(rank, given)) continue;
      for (std::int64_t& taken : experts_of_rank_[rank]) {
        if (also_holds(fullest_, taken)) continue;
        const double difference = share(given) - share(taken);
        consider({&given, &taken},
                 std::max(rows_of_rank_[fullest_] - difference, rows_of_rank_[rank] + difference));
      }
    }
  }

  // In place of a replica on `rank` one of another expert: of one on the fullest rank, or any that
  // has fewer rows a place if the fullest rank is this one.
  void consider_replicas(std::size_t rank) {
    for (std::int64_t& dropped : experts_of_rank_[rank]) {
      if (places_of(dropped) == 1) continue;
      if (rank == fullest_) {
        for (std::int64_t expert = 0; expert < std::ssize(rows_of_expert_); ++expert)
          consider_replica(rank, dropped, expert);
      } else {
        for (const std::int64_t expert : experts_of_rank_[fullest_])
          consider_replica(rank, dropped, expert);
      }
    }
  }

  void consider_replica(std::size_t rank, std::int64_t& dropped, std::int64_t expert) {
    if (holds(rank, expert)) return;
    const double more = share(dropped, places_of(dropped) - 1) - share(dropped);
    const double less = share(expert, places_of(expert) + 1) - share(expert);
    double fuller = rows_of_rank_[rank] - share(dropped) + share(expert) + less;
    for (std::size_t other = 0; other < experts_of_rank_.size(); ++other) {
      if (other == rank) continue;
      const bool has_more = holds(other, dropped), has_less = holds(other, expert);
      if (!has_more && !has_less) continue;
      fuller = std::max(fuller,
                        rows_of_rank_[other] + (has_more ? more : 0.0) + (has_less ? less : 0.0));
    }
    consider({&dropped, nullptr, expert}, fuller);
  }

  // fuller: the rows of the fullest of all ranks whose rows the step changes.
  void consider(const Step& step, double fuller) {
    if (best_.place != nullptr ? fuller >= most_ : fuller > most_) return;
    most_ = fuller;
    best_ = step;
  }

  void count_rows() {
    rows_of_rank_.assign(experts_of_rank_.size(), 0);
    for (std::size_t rank = 0; rank < experts_of_rank_.size(); ++rank)
      for (const std::int64_t expert : experts_of_rank_[rank]) rows_of_rank_[rank] += share(expert);
  }
  bool holds(std::size_t rank, std::int64_t expert) const {
    return std::ranges::find(experts_of_rank_[rank], expert) != experts_of_rank_[rank].end();
  }
  // Whether another rank than the one that an expert was found on holds it, too.
  bool also_holds(std::size_t rank, std::int64_t expert) const {
    return num_places_[static_cast<std::size_t>(expert)] > 1 && holds(rank, expert);
  }
  std::int64_t& places_of(std::int64_t expert) {
    return num_places_[static_cast<std::size_t>(expert)];
  }
  double share(std::int64_t expert) const {
    return share(expert, num_places_[static_cast<std::size_t>(expert)]);
  }
  double share(std::int64_t expert, std::int64_t num_places) const {
    return static_cast<double>(rows_of_expert_[static_cast<std::size_t>(expert)]) /
           static_cast<double>(num_places);
  }

  std::span<const std::int64_t> rows_of_expert_;
  std::vector<std::int64_t> num_places_;  // by expert
  std::vector<std::vector<std::int64_t>> experts_of_rank_;
  std::vector<double> rows_of_rank_;
  std::size_t fullest_ = 0;
  double most_ = 0;  // that the best step may leave, or leaves
  Step best_;
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

struct LoadedPlace {
  double rows;
  std::int64_t expert;
};

struct LoadedRank {
  double rows = 0;
  std::int64_t room = 0;
  std::vector<LoadedPlace> places = {};

  bool holds(std::int64_t expert) const {
    return std::ranges::find(places, expert, &LoadedPlace::expert) != places.end();
  }
};

// For a place of an expert that `full` has already, one on another rank that exchanges with it: a
// place there with nearly as many rows, of an expert that `full` has not. The place as it was if
// there is none.
LoadedPlace exchanged(std::vector<LoadedRank>& ranks, const LoadedRank& full,
                      const LoadedPlace& place) {
  LoadedRank* giver = nullptr;
  LoadedPlace* given = nullptr;
  for (LoadedRank& rank : ranks) {
    if (rank.holds(place.expert)) continue;
    for (LoadedPlace& other : rank.places)
      if (!full.holds(other.expert) && (given == nullptr || std::abs(other.rows - place.rows) <
                                                                std::abs(given->rows - place.rows)))
        giver = &rank, given = &other;
  }
  if (given == nullptr) return place;
  giver->rows += place.rows - given->rows;
  return std::exchange(*given, place);
}

}  // namespace

std::vector<std::int64_t> order_with_replicas(std::span<const std::int64_t> rows_of_expert,
                                              int num_ranks, std::int64_t num_replicas) {
  const std::vector<std::int64_t> num_places =
      places_by_load(rows_of_expert, num_ranks, num_replicas);
  std::vector<LoadedPlace> places;
  for (std::size_t e = 0; e < num_places.size(); ++e)
    for (std::int64_t i = 0; i < num_places[e]; ++i)
      places.push_back({static_cast<double>(rows_of_expert[e]) / static_cast<double>(num_places[e]),
                        static_cast<std::int64_t>(e)});
  std::ranges::stable_sort(places, std::ranges::greater{}, &LoadedPlace::rows);
  std::vector<LoadedRank> ranks(static_cast<std::size_t>(num_ranks));
  const std::int64_t total = std::ssize(places);
  for (std::int64_t r = 0; r < num_ranks; ++r)
    ranks[static_cast<std::size_t>(r)].room = (r + 1) * total / num_ranks - r * total / num_ranks;
  for (LoadedPlace place : places) {
    const auto cost = [&](const LoadedRank& rank) {
      return std::tuple(rank.room == 0, rank.holds(place.expert), rank.rows);
    };
    LoadedRank& taker = *std::ranges::min_element(ranks, {}, cost);
    if (taker.holds(place.expert)) place = exchanged(ranks, taker, place);
    taker.rows += place.rows;
    --taker.room;
    taker.places.push_back(place);
  }
  std::vector<std::int64_t> order;
  for (LoadedRank& rank : ranks) {
    std::ranges::sort(rank.places, {}, &LoadedPlace::expert);
    for (const LoadedPlace& place : rank.places) order.push_back(place.expert);
  }
  return order;
}

namespace {

// The experts of each rank, by steps from where they are.
std::vector<std::vector<std::int64_t>> improved(const Placement& start,
                                                std::span<const std::int64_t> rows_of_expert,
                                                double least) {
  Exchange exchange(start, rows_of_expert);
  // Bounds the time.
  for (std::int64_t i = 0; i < 2 * start.num_places(); ++i)
    if (!exchange.improve(least)) break;
  return exchange.experts_of_rank();
}

std::size_t num_common(std::span<const std::int64_t> experts,
                       std::span<const std::int64_t> others) {
  return static_cast<std::size_t>(std::ranges::count_if(experts, [&](std::int64_t expert) {
    return std::ranges::find(others, expert) != others.end();
  }));
}

// All experts placed anew, on ranks that have had most of them and have as many places; as they
// were if the ranks' places do not come out so.
Placement placed_anew(const Placement& now, std::span<const std::int64_t> rows_of_expert) {
  const Placement anew = Placement::in_order_of(
      order_with_replicas(rows_of_expert, now.num_ranks(), now.num_places() - now.num_experts()),
      now.num_ranks());
  std::vector<std::vector<std::int64_t>> experts_of_rank;
  std::vector<bool> is_taken(static_cast<std::size_t>(now.num_ranks()));
  for (int rank = 0; rank < now.num_ranks(); ++rank) {
    int best = -1;
    for (int other = 0; other < now.num_ranks(); ++other) {
      if (is_taken[static_cast<std::size_t>(other)] ||
          anew.num_places_of(other) != now.num_places_of(rank))
        continue;
      if (best < 0 || num_common(anew.experts_of(other), now.experts_of(rank)) >
                          num_common(anew.experts_of(best), now.experts_of(rank)))
        best = other;
    }
    if (best < 0) return now;
    is_taken[static_cast<std::size_t>(best)] = true;
    const std::span<const std::int64_t> experts = anew.experts_of(best);
    experts_of_rank.emplace_back(experts.begin(), experts.end());
  }
  return {now.num_experts(), experts_of_rank};
}

}  // namespace

Placement balanced_placement(const Placement& now, std::span<const std::int64_t> rows_of_expert,
                             double least_gain) {
  expect(std::ssize(rows_of_expert) == now.num_experts(), "the rows of each expert");
  const std::int64_t total =
      std::accumulate(rows_of_expert.begin(), rows_of_expert.end(), std::int64_t{0});
  const double least =
      std::ceil(least_gain * static_cast<double>(total) / static_cast<double>(now.num_ranks()));
  const auto improved_from = [&](const Placement& start) {
    return Placement(now.num_experts(), at_old_places(now, improved(start, rows_of_expert, least)));
  };
  const Placement by_steps = improved_from(now);
  if (!now.has_replicas()) return by_steps;
  // Replicas may be needed where no step alone helps.
  const Placement anew = improved_from(placed_anew(now, rows_of_expert));
  const bool is_worth_it =
      rank_imbalance(anew, rows_of_expert) + least_gain < rank_imbalance(by_steps, rows_of_expert);
  return is_worth_it ? anew : by_steps;
}

}  // namespace switchyard
