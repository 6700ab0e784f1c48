// The CPU twins of kernels/host_copy.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

void copy_bytes_to_host(const TensorView& from, void* to);
void copy_bytes_from_host(const void* from, const TensorView& to);

}  // namespace switchyard::kernels::cpu
