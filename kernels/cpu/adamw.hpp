// The CPU twin of the update in kernels/adamw.hpp.
#pragma once

#include "kernels/adamw.hpp"

namespace switchyard::kernels::cpu {

void adamw(const TensorView& value, const TensorView& gradient, const TensorView& moment1,
           const TensorView& moment2, const AdamWScalars& scalars);

}  // namespace switchyard::kernels::cpu
