// The kernel of kernels/group_offsets.hpp on the CPU.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

void group_offsets(const TensorView& counts, const TensorView& offsets);

}  // namespace switchyard::kernels::cpu
