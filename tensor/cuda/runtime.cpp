#include "tensor/cuda/runtime.hpp"

#include <fmt/core.h>

#include "tensor/error.hpp"

namespace switchyard::cuda {

void check(cudaError_t status, CodeLocation where) {
  if (status == cudaSuccess) return;
  const std::string text = fmt::format("{}:{}: CUDA: {} ({})", where.file, where.line,
                                       cudaGetErrorString(status), cudaGetErrorName(status));
  if (status == cudaErrorMemoryAllocation)
    throw MemoryError(text + ". Use more ranks or a smaller train.micro_batch");
  throw InternalError(text);
}

}  // namespace switchyard::cuda
