// Where experts should live, from the rows that each of them had: ranks with alike loads, and few
// experts that move.
#pragma once

#include <cstdint>
#include <span>

#include "parallel/placement.hpp"

namespace switchyard {

// The rows of the fullest rank over the mean of the ranks; 1 without rows. rows_of_expert: [E]. For
// a placement without replicas.
double rank_imbalance(const Placement& placement, std::span<const std::int64_t> rows_of_expert);

// Exchanges experts of the fullest rank for such of other ranks, one pair after the other: the pair
// that leaves the fuller of the two ranks with the fewest rows. Ends when no pair takes at least
// `least_gain` of the mean rank's rows off it. Every rank keeps its number of places, and an expert
// that stays on its rank its place. A greedy exchange, for which the balanced placement (a bin
// packing) is too hard to find; how near it comes is in what rank_imbalance() says of it. Depends
// on nothing but its arguments, so ranks that know the same rows agree.
Placement balanced_placement(const Placement& now, std::span<const std::int64_t> rows_of_expert,
                             double least_gain);

}  // namespace switchyard
