// The CUDA twins of kernels/rows/clip.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

void clip_forward(const TensorView& x, float limit, const TensorView& inside);
void clip_backward(const TensorView& dx, const TensorView& inside);

}  // namespace switchyard::kernels::cuda
