// What queries, keys and values of recurrent mixers become before the recurrence, element by
// element or head by head:
//   silu          x sigmoid(x)
//   elu_plus_one  x + 1 for x > 0, else e^x (Katharopoulos et al. 2020)
//   silu_unit     a / sqrt(sum a^2 + 1e-6) over each head, with a = silu(x) (DeltaNet, Yang et al.
//   2024)
//   unit          x / sqrt(sum x^2 + 1e-6) over each head
//   taylor        1, a_i, a_i^2 / sqrt(2), a_i a_j for i < j, with a = x / width^{1/4}: the product
//   of two heads is 1 + s + s^2 / 2, s = x . y / sqrt(width), as of all products a_i a_j / sqrt(2)
//   (Based: Arora et al. 2024)
// x: [T, heads * width], y: [T, heads * feature_width()] of one type (f32 or bf16); arithmetic in
// fp32.
#pragma once

#include <cstdint>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

enum class FeatureMap : std::uint8_t { identity, silu, elu_plus_one, silu_unit, unit, taylor };

// Features of a head.
constexpr std::int64_t feature_width(FeatureMap map, std::int64_t width) {
  return map == FeatureMap::taylor ? 1 + width + width * (width + 1) / 2 : width;
}

// y is written, and may be x if it is as wide.
void feature_map_forward(FeatureMap map, const TensorView& x, std::int64_t width,
                         const TensorView& y);
// dx is written, and may be dy if it is as wide.
void feature_map_backward(FeatureMap map, const TensorView& dy, const TensorView& x,
                          std::int64_t width, const TensorView& dx);

}  // namespace switchyard::kernels
