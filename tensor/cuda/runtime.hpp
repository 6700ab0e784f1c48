// What every caller of the CUDA runtime shares: its errors as ours. For sources of the GPU part
// alone.
#pragma once

#include <cuda_runtime_api.h>

#include "tensor/code_location.hpp"
#include "tensor/stream.hpp"

namespace switchyard::cuda {

// InternalError with CUDA's words and the caller's place unless `status` is success; MemoryError
// where memory ran out. An error of an earlier kernel shows at a later call.
void check(cudaError_t status, CodeLocation where = CodeLocation::current());

// The library's own handle of a stream of the device `cuda`.
inline cudaStream_t native(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.native());
}

}  // namespace switchyard::cuda
