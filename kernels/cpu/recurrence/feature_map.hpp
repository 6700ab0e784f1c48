// The CPU twins of kernels/recurrence/feature_map.hpp.
#pragma once

#include "kernels/recurrence/feature_map.hpp"

namespace switchyard::kernels::cpu {

void feature_map_forward(FeatureMap map, const TensorView& x, std::int64_t width,
                         const TensorView& y);
void feature_map_backward(FeatureMap map, const TensorView& dy, const TensorView& x,
                          std::int64_t width, const TensorView& dx);

}  // namespace switchyard::kernels::cpu
