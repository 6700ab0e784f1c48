#include "trainer/objective.hpp"

#include <algorithm>

#include "kernels/rows/cross_entropy.hpp"

namespace switchyard {

Examples CausalObjective::examples(const Batch& batch) {
  num_targets_ = batch.num_targets;
  if (batch.num_padding == 0 || batch.targets.empty())
    return {batch.tokens, batch.targets, batch.weights};
  targets_ = batch.targets;
  std::fill(targets_.end() - batch.num_padding * layout_.local_length(), targets_.end(),
            kernels::no_target);
  return {batch.tokens, targets_, batch.weights};
}

double CausalObjective::total_weight(std::int64_t num_sequences) const {
  if (layout_.with_weights && num_targets_ > 0) return num_targets_;
  return static_cast<double>(num_sequences * layout_.sequence_length);
}

}  // namespace switchyard
