// The CPU twins of kernels/recurrence/random_features.hpp. A piece of work is a block of rows of
// one head, whose products with the directions are dense.
#pragma once

#include "kernels/recurrence/random_features.hpp"

namespace switchyard::kernels::cpu {

void random_features_forward(FeatureSide side, const TensorView& x, const TensorView& directions,
                             const TensorView& y, const TensorView& workspace);
void random_features_backward(FeatureSide side, const TensorView& dy, const TensorView& x,
                              const TensorView& directions, const TensorView& dx,
                              const TensorView& workspace);
std::int64_t random_features_workspace_bytes(std::int64_t width, std::int64_t num_features,
                                             int num_threads);

}  // namespace switchyard::kernels::cpu
