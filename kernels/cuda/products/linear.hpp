// The CUDA twins of kernels/products/linear.hpp, by cuBLASLt; where it has nothing for an
// alignment, by the kernel of grouped products. The same call has the same bits in every run.
// Unlike on the CPU a row's bits may depend on how many rows come with it, because cuBLASLt chooses
// an algorithm by shape.
#pragma once

#include "kernels/products/linear.hpp"

namespace switchyard::kernels::cuda {

// packed: [out, in] of `compute`.
void pack_weight(const TensorView& weight, DType compute, const TensorView& packed);
void linear_forward(const TensorView& x, const PackedWeight& weight, const TensorView& y);
void linear_backward_input(const TensorView& dy, const PackedWeight& weight, const TensorView& dx,
                           Accumulate accumulate);
void linear_backward_weight(const TensorView& dy, const TensorView& x, const TensorView& dw);

}  // namespace switchyard::kernels::cuda
