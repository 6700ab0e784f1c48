// Which rank holds which experts: contiguous blocks in rank order, as equal as can be. Rank r of P
// holds the experts [floor(r E / P), floor((r + 1) E / P)). E need not be a multiple of P; with
// E < P some ranks hold none. A plain value, the same on every rank.
#pragma once

#include <cstdint>

namespace switchyard {

struct ExpertPlacement {
  std::int64_t num_experts = 0;
  int num_ranks = 1;  // of the expert axis

  std::int64_t first_expert(int rank) const { return rank * num_experts / num_ranks; }
  std::int64_t num_local_experts(int rank) const {
    return first_expert(rank + 1) - first_expert(rank);
  }
  // Of the rank that holds most: ceil(E / P).
  std::int64_t max_local_experts() const { return (num_experts + num_ranks - 1) / num_ranks; }
};

// Of `num_slots` that are spread evenly over all experts, those of one: the first experts take the
// remainder.
inline std::int64_t balanced_slots(std::int64_t num_slots, std::int64_t num_experts,
                                   std::int64_t expert) {
  return num_slots / num_experts + (expert < num_slots % num_experts ? 1 : 0);
}

// The most rows that one rank can receive when each of the ranks routes `num_tokens` tokens to
// `top_k` different experts each.
std::int64_t max_rows_received(const ExpertPlacement& placement, std::int64_t num_tokens,
                               std::int64_t top_k);

}  // namespace switchyard
