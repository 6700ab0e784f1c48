// Sizes of the CUDA twins of kernels/sums/sums.hpp, for plans too: no CUDA here.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

// Elements that one block of threads adds up.
inline constexpr std::int64_t sum_chunk = 32768;

inline std::int64_t num_sum_chunks(const TensorView& values) {
  return values.empty() ? 0 : (values.numel() + sum_chunk - 1) / sum_chunk;
}

// Of the device's kernel_scratch: the sum of each chunk, f64.
inline std::int64_t sums_scratch_bytes(std::span<const TensorView> tensors) {
  std::int64_t chunks = 0;
  for (const TensorView& values : tensors) chunks += num_sum_chunks(values);
  return chunks * size_of(DType::f64);
}

}  // namespace switchyard::kernels::cuda
