// The products of kernels/grouped_linear.hpp on the plan device: the work of each group's product.
#pragma once

#include "kernels/grouped_linear.hpp"

namespace switchyard::kernels::plan {

void grouped_linear_forward(const TensorView& x, std::span<const PackedWeight> weights,
                            std::span<const std::int64_t> offsets, const TensorView& y);
void grouped_linear_backward_input(const TensorView& dy, std::span<const PackedWeight> weights,
                                   std::span<const std::int64_t> offsets, const TensorView& dx,
                                   Accumulate accumulate);
void grouped_linear_backward_weight(const TensorView& dy, const TensorView& x,
                                    std::span<const std::int64_t> offsets, const TensorView& dw);

}  // namespace switchyard::kernels::plan
