// Sums of integers over the threads of a warp or a block, in the order of the threads.
#pragma once

#include "kernels/cuda/rows.cuh"

namespace switchyard::kernels::cuda {

// The values of this lane and those before it.
__device__ inline std::int32_t warp_inclusive_sum(std::int32_t value) {
  for (unsigned distance = 1; distance < 32; distance *= 2) {
    const std::int32_t before = __shfl_up_sync(whole_warp, value, distance);
    if (threadIdx.x % 32 >= distance) value += before;
  }
  return value;
}

struct BlockSum {
  std::int32_t before = 0;  // of the threads before this one
  std::int32_t total = 0;
};

// All threads of the block (whole warps, at most 32) must call.
__device__ inline BlockSum block_exclusive_sum(std::int32_t value) {
  __shared__ std::int32_t of_warp[32];
  const unsigned warp = threadIdx.x / 32;
  const std::int32_t inclusive = warp_inclusive_sum(value);
  __syncthreads();  // the last call's reads
  if (threadIdx.x % 32 == 31) of_warp[warp] = inclusive;
  __syncthreads();
  BlockSum sum{inclusive - value, 0};
  for (unsigned w = 0; w < blockDim.x / 32; ++w) {
    if (w < warp) sum.before += of_warp[w];
    sum.total += of_warp[w];
  }
  return sum;
}

}  // namespace switchyard::kernels::cuda
