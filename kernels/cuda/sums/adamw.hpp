// The CUDA twin of kernels/sums/adamw.hpp.
#pragma once

#include "kernels/sums/adamw.hpp"

namespace switchyard::kernels::cuda {

void adamw(std::span<const AdamWTensor> tensors, const AdamWScalars& scalars,
           const TensorView& decision);

}  // namespace switchyard::kernels::cuda
