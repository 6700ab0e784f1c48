// The CUDA twins of kernels/host_copy.hpp: on the compute stream, then the host waits.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

void copy_bytes_to_host(const TensorView& from, void* to);
void copy_bytes_from_host(const void* from, const TensorView& to);

}  // namespace switchyard::kernels::cuda
