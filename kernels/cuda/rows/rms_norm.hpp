// The CUDA twins of kernels/rows/rms_norm.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

void rms_norm_forward(const TensorView& x, const TensorView& weight, float epsilon,
                      const TensorView& y, const TensorView& rstd);
void add_rms_norm_forward(const TensorView& x, const TensorView& delta, const TensorView& weight,
                          float epsilon, const TensorView& sum, const TensorView& y,
                          const TensorView& rstd);
void rms_norm_backward(const TensorView& dy, const TensorView& x, const TensorView& weight,
                       const TensorView& rstd, const TensorView& residual_gradient,
                       const TensorView& dx, const TensorView& dweight,
                       const TensorView& workspace);

}  // namespace switchyard::kernels::cuda
