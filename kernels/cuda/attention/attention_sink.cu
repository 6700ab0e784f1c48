#include "kernels/cuda/attention/attention_sink.hpp"

#include <algorithm>

#include "kernels/cuda/rows.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;

// log sum exp of a head's sinks. Doubles, as on the CPU.
__device__ double sink_lse(const float* logits, std::int64_t num_sinks) {
  double maximum = static_cast<double>(logits[0]);
  for (std::int64_t i = 1; i < num_sinks; ++i)
    maximum = fmax(maximum, static_cast<double>(logits[i]));
  double sum = 0;
  for (std::int64_t i = 0; i < num_sinks; ++i) sum += exp(static_cast<double>(logits[i]) - maximum);
  return maximum + log(sum);
}

// Puts the sinks into a row's lse of a head; returns the factor of its output.
__device__ float add_to_lse(float& lse, double z) {
  if (lse == -INFINITY) {
    lse = static_cast<float>(z);
    return 0;
  }
  const double l = static_cast<double>(lse);
  const double larger = fmax(l, z);
  const double both = larger + log1p(exp(fmin(l, z) - larger));
  lse = static_cast<float>(both);
  return static_cast<float>(exp(l - both));
}

struct ForwardShape {
  std::int64_t num_rows = 0;
  int rows_per_block = 0;
  int num_heads = 0;
  int head_dim = 0;
  std::int64_t num_sinks = 0;
};

// A block has some whole rows: first a thread makes the factor of a row and head, then the threads
// scale, each a run of a head at a time.
template <class T, bool whole>
__global__ void forward_kernel(const float* sinks, CardRows<T> out, CardRows<float> lse,
                               ForwardShape shape) {
  extern __shared__ float factors[];  // [rows, heads]
  const std::int64_t first_row = std::int64_t{blockIdx.x} * shape.rows_per_block;
  const std::int64_t rows_left = shape.num_rows - first_row;
  const int num_rows = static_cast<int>(min(std::int64_t{shape.rows_per_block}, rows_left));
  const int num_factors = num_rows * shape.num_heads;
  for (int i = static_cast<int>(threadIdx.x); i < num_factors; i += threads) {
    const int head = i % shape.num_heads;
    const double z = sink_lse(sinks + head * shape.num_sinks, shape.num_sinks);
    factors[i] = add_to_lse(lse[first_row + i / shape.num_heads][head], z);
  }
  __syncthreads();
  constexpr int width = packet_size<T>;
  const int runs_per_head = (shape.head_dim + width - 1) / width;
  for (int i = static_cast<int>(threadIdx.x); i < num_factors * runs_per_head; i += threads) {
    const int factor = i / runs_per_head;
    const int col = i % runs_per_head * width;  // of the head
    const int head = factor % shape.num_heads;
    T* const values =
        out[first_row + factor / shape.num_heads] + std::int64_t{head} * shape.head_dim + col;
    const int left = shape.head_dim - col;
    Run<T, width> scaled = load_run<T, width, whole>(values, left);
    for (int j = 0; j < width; ++j)
      scaled.values[j] = from_float<T>(to_float(scaled.values[j]) * factors[factor]);
    store_run<T, width, whole>(values, left, scaled);
  }
}

// A block has a sink of a head, and adds over the rows in double.
constexpr int backward_threads = 1024;
__global__ void backward_kernel(const float* sinks, CardRows<const float> lse,
                                CardRows<const float> delta, std::int64_t num_rows,
                                std::int64_t num_sinks, CardRows<float> dsinks) {
  const std::int64_t head = blockIdx.x / num_sinks;
  const std::int64_t number = blockIdx.x % num_sinks;
  const float sink = sinks[head * num_sinks + number];
  double sum = 0;
#pragma unroll 8
  for (std::int64_t row = threadIdx.x; row < num_rows; row += backward_threads)
    sum += static_cast<double>(expf(sink - lse[row][head]) * delta[row][head]);
  sum = block_sum<backward_threads>(sum);
  if (threadIdx.x == 0) dsinks[head][number] -= static_cast<float>(sum);
}

}  // namespace

void attention_sink_forward(const TensorView& sinks, std::int64_t head_dim, const TensorView& out,
                            const TensorView& lse) {
  const auto num_heads = static_cast<int>(sinks.rows());
  with_float_type(out.dtype, [&](auto type) {
    using T = decltype(type);
    const auto launch = [&]<bool whole>() {
      const ForwardShape shape{.num_rows = out.rows(),
                               .rows_per_block = std::max(threads / num_heads, 1),
                               .num_heads = num_heads,
                               .head_dim = static_cast<int>(head_dim),
                               .num_sinks = sinks.cols()};
      const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(shape.rows_per_block) *
                                static_cast<std::size_t>(num_heads);
      forward_kernel<T, whole>
          <<<num_blocks(out.rows(), shape.rows_per_block), threads, bytes, stream_of(out)>>>(
              pointer<float>(sinks), card_rows<T>(out), card_rows<float>(lse), shape);
    };
    if (in_runs<T, packet_size<T>>(out) && head_dim % packet_size<T> == 0)
      launch.template operator()<true>();
    else
      launch.template operator()<false>();
  });
  check_launch();
}

void attention_sink_backward(const TensorView& sinks, const TensorView& lse,
                             const TensorView& delta, const TensorView& dsinks) {
  backward_kernel<<<static_cast<unsigned>(sinks.numel()), backward_threads, 0, stream_of(lse)>>>(
      pointer<float>(sinks), card_rows<const float>(lse), card_rows<const float>(delta), lse.rows(),
      sinks.cols(), card_rows<float>(dsinks));
  check_launch();
}

}  // namespace switchyard::kernels::cuda
