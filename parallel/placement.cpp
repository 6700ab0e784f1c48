#include "parallel/placement.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard {

Placement Placement::contiguous(std::int64_t num_experts, int num_ranks) {
  std::vector<std::int64_t> experts(static_cast<std::size_t>(num_experts));
  std::iota(experts.begin(), experts.end(), std::int64_t{0});
  return in_order_of(experts, num_ranks);
}

Placement Placement::in_order_of(std::span<const std::int64_t> experts_by_place, int num_ranks) {
  const std::int64_t num_places = std::ssize(experts_by_place);
  const std::int64_t num_experts =
      num_places == 0 ? 0 : *std::ranges::max_element(experts_by_place) + 1;
  std::vector<std::vector<std::int64_t>> experts_of_rank;
  std::vector<std::int64_t> last_rank(static_cast<std::size_t>(num_experts), -1);  // that has it
  for (std::int64_t rank = 0; rank < num_ranks; ++rank) {
    std::vector<std::int64_t>& experts = experts_of_rank.emplace_back();
    for (std::int64_t place = rank * num_places / num_ranks;
         place < (rank + 1) * num_places / num_ranks; ++place) {
      const std::int64_t expert = experts_by_place[static_cast<std::size_t>(place)];
      if (std::exchange(last_rank[static_cast<std::size_t>(expert)], rank) != rank)
        experts.push_back(expert);
    }
  }
  return {num_experts, experts_of_rank};
}

Placement::Placement(std::int64_t num_experts,
                     const std::vector<std::vector<std::int64_t>>& experts_of_rank)
    : num_experts_(num_experts),
      first_place_{0},
      place_of_expert_(static_cast<std::size_t>(num_experts), -1) {
  expect(!experts_of_rank.empty(), "the experts of at least one rank");
  std::vector<std::int64_t> last_rank(static_cast<std::size_t>(num_experts), -1);  // that has it
  for (std::int64_t rank = 0; rank < std::ssize(experts_of_rank); ++rank) {
    for (const std::int64_t expert : experts_of_rank[static_cast<std::size_t>(rank)]) {
      expect(0 <= expert && expert < num_experts, "experts that the model has");
      expect(std::exchange(last_rank[static_cast<std::size_t>(expert)], rank) != rank,
             "no expert at two places of one rank");
      const auto place = static_cast<std::int32_t>(expert_at_.size());
      std::int32_t& first = place_of_expert_[static_cast<std::size_t>(expert)];
      if (first < 0) first = place;
      in_order_ = in_order_ && place == expert;
      expert_at_.push_back(expert);
    }
    first_place_.push_back(std::ssize(expert_at_));
  }
  expect(std::none_of(place_of_expert_.begin(), place_of_expert_.end(),
                      [](std::int32_t place) { return place < 0; }),
         "a place for every expert");
  first_by_expert_.assign(static_cast<std::size_t>(num_experts) + 1, 0);
  for (const std::int64_t expert : expert_at_)
    ++first_by_expert_[static_cast<std::size_t>(expert) + 1];
  std::partial_sum(first_by_expert_.begin(), first_by_expert_.end(), first_by_expert_.begin());
  places_by_expert_.resize(expert_at_.size());
  std::vector<std::int32_t> next = first_by_expert_;
  for (std::size_t place = 0; place < expert_at_.size(); ++place)
    places_by_expert_[static_cast<std::size_t>(
        next[static_cast<std::size_t>(expert_at_[place])]++)] = static_cast<std::int32_t>(place);
}

std::int64_t Placement::most_places() const {
  std::int64_t most = 0;
  for (int rank = 0; rank < num_ranks(); ++rank) most = std::max(most, num_places_of(rank));
  return most;
}

std::span<const std::int64_t> Placement::experts_of(int rank) const {
  return std::span(expert_at_)
      .subspan(static_cast<std::size_t>(first_place(rank)),
               static_cast<std::size_t>(num_places_of(rank)));
}

std::vector<SharedIndex> Placement::shared() const {
  std::vector<SharedIndex> shared;
  for (std::int64_t expert = 0; expert < num_experts_; ++expert) {
    const std::span<const std::int32_t> places = places_of(expert);
    if (places.size() == 1) continue;
    shared.push_back({expert, {}});
    for (const std::int32_t place : places) shared.back().ranks.push_back(rank_of(place));
  }
  return shared;
}

std::int64_t Placement::share_of(std::int64_t rows_of_expert, std::int64_t place) const {
  const std::span<const std::int32_t> places = places_of(expert_at(place));
  return balanced_slots(rows_of_expert, std::ssize(places),
                        std::ranges::find(places, place) - places.begin());
}

std::int64_t Placement::balanced_rows(std::int64_t num_slots, std::int64_t place) const {
  return share_of(balanced_slots(num_slots, num_experts_, expert_at(place)), place);
}

std::int64_t max_rows_received(const Placement& placement, std::int64_t num_tokens,
                               std::int64_t top_k) {
  // A token's choices are different experts, so at most min(k, places of a rank) of them meet
  // there.
  return num_tokens * placement.num_ranks() * std::min(top_k, placement.most_places());
}

}  // namespace switchyard
