#include "trainer/placement/layer_placements.hpp"

#include <algorithm>

namespace switchyard {

Placement placement_of(const ExpertsConfig& experts, std::int64_t num_ranks) {
  const auto ranks = static_cast<int>(num_ranks);
  return experts.placement.order.empty() ? Placement::contiguous(experts.num_experts, ranks)
                                         : Placement::in_order_of(experts.placement.order, ranks);
}

std::vector<Placement> layer_placements(const Config& config, const Placement& placement) {
  std::int64_t num_layers = 0;
  for (std::int64_t layer = 0; layer < config.model.num_layers; ++layer)
    num_layers += config.experts.layer_has_experts(layer) ? 1 : 0;
  return {static_cast<std::size_t>(std::max<std::int64_t>(num_layers, 1)), placement};
}

}  // namespace switchyard
