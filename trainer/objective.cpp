#include "trainer/objective.hpp"

#include <algorithm>

#include "kernels/cross_entropy.hpp"

namespace switchyard {

Examples CausalObjective::examples(const Batch& batch) {
  if (batch.num_padding == 0 || batch.targets.empty()) return {batch.tokens, batch.targets, {}};
  targets_ = batch.targets;
  std::fill(targets_.end() - batch.num_padding * layout_.local_length(), targets_.end(),
            kernels::no_target);
  return {batch.tokens, targets_, {}};
}

double CausalObjective::total_weight(std::int64_t num_sequences) const {
  return static_cast<double>(num_sequences * layout_.sequence_length);
}

}  // namespace switchyard
