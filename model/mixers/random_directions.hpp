// Directions of random features (kernels/recurrence/random_features.hpp), as FAVOR+ draws them
// (Choromanski et al. 2021, section 3): normal vectors of which each `width` in turn are made
// orthogonal, which estimates better, with lengths as those of other normal vectors. They depend on
// the key alone and are not trained.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/random.hpp"

namespace switchyard {

// [num, width]
std::vector<float> random_directions(std::int64_t num, std::int64_t width, RandomKey key);

}  // namespace switchyard
