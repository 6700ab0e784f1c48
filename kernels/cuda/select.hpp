// The CUDA twin of kernels/select.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

void select_top_k(const TensorView& scores, const TensorView& indices);

}  // namespace switchyard::kernels::cuda
