#include "trainer/placement/layer_placements.hpp"

#include <algorithm>

#include "parallel/placement_choice.hpp"

namespace switchyard {

Placement placement_of(const ExpertsConfig& experts, std::int64_t num_ranks) {
  const auto ranks = static_cast<int>(num_ranks);
  const PlacementConfig& config = experts.placement;
  if (!config.order.empty()) return Placement::in_order_of(config.order, ranks);
  if (config.replicas == 0 || ranks == 1) return Placement::contiguous(experts.num_experts, ranks);
  // Nobody has measured loads yet.
  const std::vector<std::int64_t> alike(static_cast<std::size_t>(experts.num_experts), 1);
  return Placement::in_order_of(order_with_replicas(alike, ranks, config.replicas), ranks);
}

std::vector<Placement> layer_placements(const Config& config, const Placement& placement) {
  std::int64_t num_layers = 0;
  for (std::int64_t layer = 0; layer < config.model.num_layers; ++layer)
    num_layers += config.experts.layer_has_experts(layer) ? 1 : 0;
  return {static_cast<std::size_t>(std::max<std::int64_t>(num_layers, 1)), placement};
}

}  // namespace switchyard
