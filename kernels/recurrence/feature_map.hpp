// What queries, keys and values of recurrent mixers become before the recurrence, element by
// element or head by head:
//   silu          x sigmoid(x)
//   elu_plus_one  x + 1 for x > 0, else e^x (Katharopoulos et al. 2020)
//   silu_unit     a / sqrt(sum a^2 + 1e-6) over each head, with a = silu(x) (DeltaNet, Yang et al.
//   2024)
// x, y: [T, heads * width] of one type (f32 or bf16); arithmetic in fp32.
#pragma once

#include <cstdint>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

enum class FeatureMap : std::uint8_t { identity, silu, elu_plus_one, silu_unit };

// y is written, and may be x.
void feature_map_forward(FeatureMap map, const TensorView& x, std::int64_t width,
                         const TensorView& y);
// dx is written, and may be dy.
void feature_map_backward(FeatureMap map, const TensorView& dy, const TensorView& x,
                          std::int64_t width, const TensorView& dx);

}  // namespace switchyard::kernels
