// The weight gradients of kernels/products/linear.hpp and kernels/products/grouped_linear.hpp on
// the CPU. How dw is cut follows from its size and the number of threads, and so do the bits.
#pragma once

#include <span>

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

// dw[g] += dy^T x over the rows [offsets[g], offsets[g + 1]); dw f32 [groups, out, in].
void add_weight_gradients(const TensorView& dy, const TensorView& x,
                          std::span<const std::int64_t> offsets, float* dw);

struct GradientSizes {
  std::int64_t out = 0;
  std::int64_t in = 0;
  DType compute = DType::f32;
};
// What it takes of Device::kernel_scratch, on any processor.
std::int64_t weight_gradient_scratch(const GradientSizes& sizes, int num_threads);

}  // namespace switchyard::kernels::cpu
