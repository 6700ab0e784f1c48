// Where experts should live, from the rows that each of them had: ranks with alike loads, and few
// experts that move.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/placement.hpp"

namespace switchyard {

// The rows of the fullest rank over the mean of the ranks; 1 without rows. rows_of_expert: [E]; of
// one with replicas each has an equal share.
double rank_imbalance(const Placement& placement, std::span<const std::int64_t> rows_of_expert);

// Takes rows off the fullest rank, one step after the other: it exchanges an expert for one of
// another rank, or, where there are replicas, a place passes from an expert that has several to
// another one. It is the step that leaves the fullest of the ranks that it changes with the fewest
// rows. Ends when no step takes at least `least_gain` of the mean rank's rows off the fullest rank.
// Every rank keeps its number of places, and an expert that stays on its rank its place; no rank
// has an expert twice. With replicas, if placing all experts anew (order_with_replicas) is better by
// `least_gain` than these steps, that is done. Greedy, since the balanced placement (a bin packing)
// is too hard to find; how near it comes is in what rank_imbalance() says of it. Depends on nothing
// but its arguments, so ranks that know the same rows agree.
Placement balanced_placement(const Placement& now, std::span<const std::int64_t> rows_of_expert,
                             double least_gain);

// Where experts should live if they may have replicas, as the order of experts by place
// (Placement::in_order_of): with so many places more than experts. One after the other, the expert
// with the most rows a place gets a place more, as long as there are ranks for it; then, beginning
// with the most rows, each place goes to the rank with the fewest so far that has room and not this
// expert (longest processing time first: Graham 1969). If all that have room have the expert, too,
// another rank exchanges a place of nearly as many rows with one of them.
std::vector<std::int64_t> order_with_replicas(std::span<const std::int64_t> rows_of_expert,
                                              int num_ranks, std::int64_t num_replicas);

}  // namespace switchyard
