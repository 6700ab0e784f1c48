// The CPU twin of the update in kernels/sums/adamw.hpp.
#pragma once

#include "kernels/sums/adamw.hpp"

namespace switchyard::kernels::cpu {

void adamw(std::span<const AdamWTensor> tensors, const AdamWScalars& scalars,
           const TensorView& decision);

}  // namespace switchyard::kernels::cpu
