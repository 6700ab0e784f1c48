// The CUDA twins of kernels/products/grouped_linear.hpp. A row's bits depend on the row and its
// weight alone, and those of a weight gradient on its group's rows.
#pragma once

#include "kernels/products/grouped_linear.hpp"

namespace switchyard::kernels::cuda {

void grouped_linear_forward(const TensorView& x, std::span<const PackedWeight> weights,
                            const TensorView& offsets, const TensorView& y);
void grouped_linear_backward_input(const TensorView& dy, std::span<const PackedWeight> weights,
                                   const TensorView& offsets, const TensorView& dx,
                                   Accumulate accumulate);
void grouped_linear_backward_weight(const TensorView& dy, const TensorView& x,
                                    const TensorView& offsets, const TensorView& dw);

}  // namespace switchyard::kernels::cuda
