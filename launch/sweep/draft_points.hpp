// From the sets of a study to its points, before anything is known of their sizes: the product of
// grid, list, draws, scaling form and iso-FLOP family, in that order, the last changing fastest.
#pragma once

#include <cstdint>
#include <vector>

#include "launch/sweep/study_config.hpp"

namespace switchyard {

struct DraftPoint {
  const PointSetConfig* set = nullptr;
  Settings settings;  // over the study's configuration; later ones count
  std::int64_t ranks = 1;
  std::int64_t batch_factor = 1;  // weak scaling: of train.global_batch
  double budget = 0;              // FLOPs that num_steps is to meet; 0: num_steps is given
};

// The numbers drawn depend on the seed, the key and the number of the draw alone: more draws leave
// the earlier ones as they were.
std::vector<DraftPoint> draft_points(const StudyConfig& study);

}  // namespace switchyard
