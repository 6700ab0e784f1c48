// The CUDA twin of kernels/routing/group_offsets.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

void group_offsets(const TensorView& counts, const TensorView& offsets);

}  // namespace switchyard::kernels::cuda
