// The products of kernels/products/linear.hpp on the plan device: they record their work.
#pragma once

#include "kernels/products/linear.hpp"

namespace switchyard::kernels::plan {

void pack_weight(const TensorView& weight, DType compute, const TensorView& forward,
                 const TensorView& backward);
void linear_forward(const TensorView& x, const PackedWeight& weight, const TensorView& y);
void linear_backward_input(const TensorView& dy, const PackedWeight& weight, const TensorView& dx,
                           Accumulate accumulate);
void linear_backward_weight(const TensorView& dy, const TensorView& x, const TensorView& dw);

}  // namespace switchyard::kernels::plan
