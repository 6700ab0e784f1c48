#include "kernels/cuda/common.cuh"
#include "kernels/cuda/routing/routing_figures.hpp"
#include "kernels/cuda/rows.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 128;
constexpr int tokens_per_block = threads / 32;

// Integers, whose sum has no order.
__device__ void add_to(std::int64_t* into, std::int64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(into), static_cast<unsigned long long>(value));
}

// A warp has a token.
__global__ void entropy_kernel(CardRows<const float> shares, std::int64_t num_tokens,
                               std::int64_t num_experts, std::int64_t* into) {
  const std::int64_t t = std::int64_t{blockIdx.x} * tokens_per_block + threadIdx.x / 32;
  if (t >= num_tokens) return;
  float sum = 0;
  for (std::int64_t e = threadIdx.x % 32; e < num_experts; e += 32) {
    const float p = shares[t][e];
    if (!(p == 0)) sum -= p * logf(p);
  }
  for (int distance = 16; distance > 0; distance /= 2)
    sum += __shfl_xor_sync(whole_warp, sum, distance);
  if (threadIdx.x % 32 == 0 && isfinite(sum))
    add_to(into, llrint(static_cast<double>(sum) / entropy_unit));
}

__global__ void marked_kernel(const std::int32_t* counts, const std::int32_t* marks, std::int64_t n,
                              std::int64_t* into) {
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i < n && marks[i] != 0) add_to(into, counts[i]);
}

}  // namespace

void add_entropy(const TensorView& shares, const TensorView& into) {
  entropy_kernel<<<num_blocks(shares.rows(), tokens_per_block), threads, 0, stream_of(into)>>>(
      card_rows<const float>(shares), shares.rows(), shares.cols(), pointer<std::int64_t>(into));
  check_launch();
}

void add_marked(const TensorView& counts, const TensorView& marks, const TensorView& into) {
  marked_kernel<<<num_blocks(counts.numel(), threads), threads, 0, stream_of(into)>>>(
      pointer<std::int32_t>(counts), pointer<std::int32_t>(marks), counts.numel(),
      pointer<std::int64_t>(into));
  check_launch();
}

}  // namespace switchyard::kernels::cuda
