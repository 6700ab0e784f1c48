// The CUDA twin of kernels/rows/group_bias.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

void add_group_bias(const TensorView& bias, const TensorView& offsets, const TensorView& y);

}  // namespace switchyard::kernels::cuda
