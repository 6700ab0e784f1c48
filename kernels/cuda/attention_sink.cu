#include "kernels/cuda/attention_sink.hpp"

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
  int runs_per_head = 0;
  std::int64_t num_sinks = 0;
};

template <class T, int width>
struct alignas(width * sizeof(T)) Run {
  T values[width];
};

// A block has some whole rows: first a thread makes the factor of a row and head, then the threads
// scale, each a run of `width` elements at a time.
template <class T, int width>
__global__ void forward_kernel(const float* sinks, Rows<T> out, Rows<float> lse,
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
  const int num_runs = num_factors * shape.runs_per_head;
  for (int i = static_cast<int>(threadIdx.x); i < num_runs; i += threads) {
    const int factor = i / shape.runs_per_head;
    const int row = factor / shape.num_heads;
    const int run = i - row * shape.num_heads * shape.runs_per_head;
    auto& values = reinterpret_cast<Run<T, width>*>(out[first_row + row])[run];
    Run<T, width> scaled = values;
    for (int j = 0; j < width; ++j)
      scaled.values[j] = from_float<T>(to_float(scaled.values[j]) * factors[factor]);
    values = scaled;
  }
}

// A block has a sink of a head, and adds over the rows in double.
constexpr int backward_threads = 1024;
__global__ void backward_kernel(const float* sinks, Rows<const float> lse, Rows<const float> delta,
                                std::int64_t num_rows, std::int64_t num_sinks, Rows<float> dsinks) {
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
    const auto launch = [&]<int width>() {
      const ForwardShape shape{.num_rows = out.rows(),
                               .rows_per_block = std::max(threads / num_heads, 1),
                               .num_heads = num_heads,
                               .runs_per_head = static_cast<int>(head_dim / width),
                               .num_sinks = sinks.cols()};
      const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(shape.rows_per_block) *
                                static_cast<std::size_t>(num_heads);
      forward_kernel<T, width>
          <<<num_blocks(out.rows(), shape.rows_per_block), threads, bytes, stream_of(out)>>>(
              pointer<float>(sinks), rows_of<T>(out), rows_of<float>(lse), shape);
    };
    if (has_packets(out) && head_dim % packet_size<T> == 0)
      launch.template operator()<packet_size<T>>();
    else
      launch.template operator()<1>();
  });
  check_launch();
}

void attention_sink_backward(const TensorView& sinks, const TensorView& lse,
                             const TensorView& delta, const TensorView& dsinks) {
  backward_kernel<<<static_cast<unsigned>(sinks.numel()), backward_threads, 0, stream_of(lse)>>>(
      pointer<float>(sinks), rows_of<const float>(lse), rows_of<const float>(delta), lse.rows(),
      sinks.cols(), rows_of<float>(dsinks));
  check_launch();
}

}  // namespace switchyard::kernels::cuda
