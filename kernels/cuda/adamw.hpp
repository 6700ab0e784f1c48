// The CUDA twin of kernels/adamw.hpp.
#pragma once

#include "kernels/adamw.hpp"

namespace switchyard::kernels::cuda {

void adamw(std::span<const AdamWTensor> tensors, const AdamWScalars& scalars,
           const TensorView& decision);

}  // namespace switchyard::kernels::cuda
