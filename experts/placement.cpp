#include "experts/placement.hpp"

#include <algorithm>

namespace switchyard {

std::int64_t max_rows_received(const ExpertPlacement& placement, std::int64_t num_tokens,
                               std::int64_t top_k) {
  // A token's choices are different experts, so at most min(k, local experts) of them meet here.
  return num_tokens * placement.num_ranks * std::min(top_k, placement.max_local_experts());
}

}  // namespace switchyard
