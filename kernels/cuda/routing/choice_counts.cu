#include "kernels/cuda/common.cuh"
#include "kernels/cuda/routing/choice_counts.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 128;

__global__ void sum_kernel(const std::int32_t* counts, std::int64_t num_sequences,
                           std::int64_t num_experts, std::int64_t* totals) {
  const std::int64_t e = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (e >= num_experts) return;
  std::int64_t total = 0;
  for (std::int64_t s = 0; s < num_sequences; ++s) total += counts[s * num_experts + e];
  totals[e] = total;
}

__global__ void add_kernel(const std::int64_t* counts, std::int64_t* into, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i < n) into[i] += counts[i];
}

__global__ void spread_kernel(const std::int64_t* totals, std::int64_t num_experts,
                              std::int32_t* counts, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i < n) counts[i] = static_cast<std::int32_t>(totals[i % num_experts]);
}

// Every thread adds all counts up itself: there are few, and they are in the cache.
__global__ void move_bias_kernel(const std::int64_t* counts, std::int64_t num_experts,
                                 const float* decision, float rate, float* bias) {
  const std::int64_t e = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (e >= num_experts || decision[1] == 0) return;
  std::int64_t total = 0;
  for (std::int64_t i = 0; i < num_experts; ++i) total += counts[i];
  const std::int64_t times_mean = counts[e] * num_experts;
  if (times_mean < total) bias[e] += rate;
  if (times_mean > total) bias[e] -= rate;
}

}  // namespace

void sum_counts(const TensorView& counts, const TensorView& totals) {
  sum_kernel<<<num_blocks(totals.numel(), threads), threads, 0, stream_of(totals)>>>(
      counts.empty() ? nullptr : pointer<std::int32_t>(counts), counts.rows(), totals.numel(),
      pointer<std::int64_t>(totals));
  check_launch();
}

void add_counts(const TensorView& counts, const TensorView& into) {
  add_kernel<<<num_blocks(into.numel(), threads), threads, 0, stream_of(into)>>>(
      pointer<std::int64_t>(counts), pointer<std::int64_t>(into), into.numel());
  check_launch();
}

void spread_counts(const TensorView& totals, const TensorView& counts) {
  spread_kernel<<<num_blocks(counts.numel(), threads), threads, 0, stream_of(counts)>>>(
      pointer<std::int64_t>(totals), totals.numel(), pointer<std::int32_t>(counts), counts.numel());
  check_launch();
}

void move_selection_bias(const TensorView& counts, const TensorView& decision, float rate,
                         const TensorView& bias) {
  move_bias_kernel<<<num_blocks(bias.numel(), threads), threads, 0, stream_of(bias)>>>(
      pointer<std::int64_t>(counts), bias.numel(), pointer<float>(decision), rate,
      pointer<float>(bias));
  check_launch();
}

}  // namespace switchyard::kernels::cuda
