// Which rank holds which experts. A *place* is room for the weights of one expert on one rank (a
// physical expert slot). Places are numbered by rank, then within a rank. Every expert has a place;
// one with several has replicas, which hold the same weights and share its rows
// (kernels/routing/place_choices.hpp). Nobody else knows a formula
// for where an expert lives: rows are sorted by place, parameters hold the experts of a rank's
// places, memory follows from their number. Made once with the mesh and passed; the same on every
// rank.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "parallel/parameter_slice.hpp"

namespace switchyard {

class Placement {
 public:
  // Each expert once, in contiguous blocks in rank order, as equal as can be: rank r of P holds the
  // experts floor(r E / P) ... floor((r + 1) E / P) - 1. E need not be a multiple of P; with E < P
  // some ranks hold none.
  static Placement contiguous(std::int64_t num_experts, int num_ranks);
  // Places of equal number, as can be: at place p the expert experts_by_place[p]. Each of the
  // experts 0 to the largest is there once, or several times: then it has a place on each of these
  // ranks, but one only on a rank that would have several.
  static Placement in_order_of(std::span<const std::int64_t> experts_by_place, int num_ranks);
  // experts_of_rank[r]: the experts at rank r's places. InternalError unless all are experts, each
  // has a place and no rank holds one twice.
  Placement(std::int64_t num_experts,
            const std::vector<std::vector<std::int64_t>>& experts_of_rank);

  std::int64_t num_experts() const { return num_experts_; }
  int num_ranks() const { return static_cast<int>(first_place_.size()) - 1; }
  std::int64_t num_places() const { return first_place_.back(); }
  bool has_replicas() const { return num_places() > num_experts_; }
  // Whether expert e is at place e, for all of them.
  bool is_in_order() const { return in_order_; }

  std::int64_t first_place(int rank) const { return first_place_[static_cast<std::size_t>(rank)]; }
  int rank_of(std::int64_t place) const {
    return static_cast<int>(std::ranges::upper_bound(first_place_, place) - first_place_.begin()) -
           1;
  }
  std::int64_t num_places_of(int rank) const { return first_place(rank + 1) - first_place(rank); }
  std::int64_t most_places() const;  // of any rank
  std::span<const std::int64_t> experts_of(int rank) const;
  std::int64_t expert_at(std::int64_t place) const {
    return expert_at_[static_cast<std::size_t>(place)];
  }
  // The first place of each expert: [E].
  std::span<const std::int32_t> place_of_expert() const { return place_of_expert_; }
  // The places of all experts, one after the other, and where those of each begin there: [places],
  // [E + 1].
  std::span<const std::int32_t> places_by_expert() const { return places_by_expert_; }
  std::span<const std::int32_t> first_by_expert() const { return first_by_expert_; }
  // Those of one, ascending.
  std::span<const std::int32_t> places_of(std::int64_t expert) const {
    const auto e = static_cast<std::size_t>(expert);
    return std::span(places_by_expert_)
        .subspan(static_cast<std::size_t>(first_by_expert_[e]),
                 static_cast<std::size_t>(first_by_expert_[e + 1] - first_by_expert_[e]));
  }
  // The experts with replicas, ascending, and the ranks that hold them.
  std::vector<SharedIndex> shared() const;
  // Of the rows of the expert at a place those that come there, spread evenly over its places; and
  // of slots that are spread evenly over all experts.
  std::int64_t share_of(std::int64_t rows_of_expert, std::int64_t place) const;
  std::int64_t balanced_rows(std::int64_t num_slots, std::int64_t place) const;
  // The rank of the first place of an expert.
  int rank_of_expert(std::int64_t expert) const {
    return rank_of(place_of_expert_[static_cast<std::size_t>(expert)]);
  }

 private:
  std::int64_t num_experts_;
  bool in_order_ = true;
  std::vector<std::int64_t> first_place_;  // [P + 1]
  std::vector<std::int64_t> expert_at_;    // [places]
  std::vector<std::int32_t> place_of_expert_;
  std::vector<std::int32_t> places_by_expert_, first_by_expert_;
};

// Of `num_slots` that are spread evenly over all experts, those of one: the first experts take the
// remainder.
inline std::int64_t balanced_slots(std::int64_t num_slots, std::int64_t num_experts,
                                   std::int64_t expert) {
  return num_slots / num_experts + (expert < num_slots % num_experts ? 1 : 0);
}

// The most rows that one rank can receive when each of the ranks routes `num_tokens` tokens to
// `top_k` different experts each.
std::int64_t max_rows_received(const Placement& placement, std::int64_t num_tokens,
                               std::int64_t top_k);

}  // namespace switchyard
