#include "kernels/cuda/attention/attention.hpp"

#include "kernels/cuda/attention/attention_general.hpp"
#include "kernels/cuda/attention/attention_hopper.hpp"
#include "kernels/cuda/attention/attention_tiles.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int delta_threads = 256;

// `lanes` neighbouring threads take a head's dot product, `width` elements at a time each.
template <class A, class B, int lanes, int width>
__global__ void __launch_bounds__(delta_threads)
    delta_kernel(MatrixRows<const A> out, MatrixRows<const B> dout, MatrixRows<float> delta,
                 std::int64_t rows, std::int32_t num_heads, std::int32_t head_dim) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * delta_threads + threadIdx.x) / lanes;
  const auto lane = static_cast<int>(threadIdx.x % lanes);
  const std::int64_t row = min(i / num_heads, rows - 1);  // the last warp's all take part
  const auto head = static_cast<std::int32_t>(i % num_heads);
  const A* a = out[row] + std::int64_t{head} * head_dim;
  const B* b = dout[row] + std::int64_t{head} * head_dim;
  float sum = 0.0f;
  for (std::int32_t d = lane * width; d < head_dim; d += lanes * width) {
    struct alignas(width * sizeof(A)) RunA {
      A values[width];
    };
    struct alignas(width * sizeof(B)) RunB {
      B values[width];
    };
    const RunA left = *reinterpret_cast<const RunA*>(a + d);
    const RunB right = *reinterpret_cast<const RunB*>(b + d);
#pragma unroll
    for (int n = 0; n < width; ++n)
      sum = fmaf(to_float(left.values[n]), to_float(right.values[n]), sum);
  }
  for (int distance = lanes / 2; distance > 0; distance /= 2)
    sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (lane == 0 && i < rows * num_heads) delta[row][head] = sum;
}

}  // namespace

void attention_delta(const TensorView& out, const TensorView& dout, std::int64_t head_dim,
                     const TensorView& delta) {
  const std::int64_t count = out.rows() * delta.cols();
  with_float_type(out.dtype, [&](auto of_out) {
    using A = decltype(of_out);
    with_float_type(dout.dtype, [&](auto of_dout) {
      using B = decltype(of_dout);
      const auto launch = [&]<int lanes, int width>() {
        delta_kernel<A, B, lanes, width>
            <<<num_blocks(count, delta_threads / lanes), delta_threads, 0, stream_of(out)>>>(
                rows_of<const A>(out), rows_of<const B>(dout), rows_of<float>(delta), out.rows(),
                static_cast<std::int32_t>(delta.cols()), static_cast<std::int32_t>(head_dim));
      };
      constexpr int width = packet_size<B> < packet_size<A> ? packet_size<B> : packet_size<A>;
      if (has_packets(out) && has_packets(dout) && head_dim % (16 * width) == 0)
        launch.template operator()<16, width>();
      else if (has_packets(out) && has_packets(dout) && head_dim % (8 * width) == 0)
        launch.template operator()<8, width>();
      else
        launch.template operator()<32, 1>();
    });
  });
  check_launch();
}

void attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                       const TensorView& v, const KeyRanges& ranges, const TensorView& out,
                       const TensorView& lse, Merge merge, const TensorView&, const Poll& poll) {
  if (can_attend_on_hopper(shape, q, k, v, out))
    attention_forward_hopper(shape, q, k, v, ranges, out, lse, merge);
  else
    attention_forward_general(shape, q, k, v, ranges, out, lse, merge);
  if (poll) poll();
}

void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const KeyRanges& ranges, const TensorView& lse,
                        const TensorView& delta, const TensorView& dout,
                        const AttentionGradients& gradients, const TensorView&, const Poll& poll) {
  const BackwardCall call{shape, q, k, v, ranges, lse, delta, dout, gradients};
  if (can_differentiate_on_hopper(call)) {
    query_gradients_hopper(call);
    key_gradients_hopper(call);
  } else {
    attention_backward_general(shape, q, k, v, ranges, lse, delta, dout, gradients);
  }
  if (poll) poll();
}

}  // namespace switchyard::kernels::cuda
