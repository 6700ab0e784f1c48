// Where the experts of each layer live when a run begins.
#pragma once

#include <vector>

#include "parallel/placement.hpp"
#include "trainer/config.hpp"

namespace switchyard {

// Of every layer with experts alike, on so many ranks of the expert axis: experts.placement.order,
// or with places for experts.placement.replicas.
Placement placement_of(const ExpertsConfig& experts, std::int64_t num_ranks);
// For each layer with experts; one for a model without, whose sizes then are those of none.
std::vector<Placement> layer_placements(const Config& config, const Placement& placement);

}  // namespace switchyard
