#include "kernels/cuda/swiglu.hpp"

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;

__device__ float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

// One thread: `width` neighbours of a row (a packet, or one element).
template <class T, int width>
struct alignas(width * sizeof(T)) Run {
  T values[width];
};

template <class T, int width>
__global__ void forward_kernel(const T* gate_up, std::int64_t gate_up_stride, T* act,
                               std::int64_t act_stride, std::int64_t rows, std::int64_t cols) {
  const std::int64_t runs = cols / width;
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i >= rows * runs) return;
  const std::int64_t row = i / runs;
  const std::int64_t col = i % runs * width;
  using R = Run<T, width>;
  const R gate = *reinterpret_cast<const R*>(gate_up + row * gate_up_stride + col);
  const R up = *reinterpret_cast<const R*>(gate_up + row * gate_up_stride + cols + col);
  R out;
  for (int j = 0; j < width; ++j) {
    const float g = to_float(gate.values[j]);
    out.values[j] = from_float<T>(g * sigmoid(g) * to_float(up.values[j]));
  }
  *reinterpret_cast<R*>(act + row * act_stride + col) = out;
}

struct BackwardStrides {
  std::int64_t d_act = 0;
  std::int64_t gate_up = 0;
  std::int64_t d_gate_up = 0;
  std::int64_t act = 0;
};

template <class T, int width>
__global__ void backward_kernel(const T* d_act, const T* gate_up, T* d_gate_up, T* act,
                                BackwardStrides strides, std::int64_t rows, std::int64_t cols) {
  const std::int64_t runs = cols / width;
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i >= rows * runs) return;
  const std::int64_t row = i / runs;
  const std::int64_t col = i % runs * width;
  using R = Run<T, width>;
  const R gate = *reinterpret_cast<const R*>(gate_up + row * strides.gate_up + col);
  const R up = *reinterpret_cast<const R*>(gate_up + row * strides.gate_up + cols + col);
  const R slope = *reinterpret_cast<const R*>(d_act + row * strides.d_act + col);
  R d_gate;
  R d_up;
  R out;
  for (int j = 0; j < width; ++j) {
    const float g = to_float(gate.values[j]);
    const float u = to_float(up.values[j]);
    const float d = to_float(slope.values[j]);
    const float s = sigmoid(g);
    const float silu = g * s;
    out.values[j] = from_float<T>(silu * u);
    d_up.values[j] = from_float<T>(d * silu);
    d_gate.values[j] = from_float<T>(d * u * (s + silu * (1.0f - s)));
  }
  *reinterpret_cast<R*>(d_gate_up + row * strides.d_gate_up + col) = d_gate;
  *reinterpret_cast<R*>(d_gate_up + row * strides.d_gate_up + cols + col) = d_up;
  *reinterpret_cast<R*>(act + row * strides.act + col) = out;
}

// Whether gate and up of every row, and the rows of `act`, can be moved in packets.
bool in_packets(const TensorView& gate_up, const TensorView& act) {
  return has_packets(gate_up) && has_packets(act);
}

}  // namespace

void swiglu_forward(const TensorView& gate_up, const TensorView& act) {
  with_float_type(act.dtype, [&](auto type) {
    using T = decltype(type);
    const auto launch = [&]<int width>() {
      const std::int64_t count = act.rows() * (act.cols() / width);
      forward_kernel<T, width><<<num_blocks(count, threads), threads, 0, stream_of(act)>>>(
          pointer<T>(gate_up), gate_up.row_stride, pointer<T>(act), act.row_stride, act.rows(),
          act.cols());
    };
    if (in_packets(gate_up, act))
      launch.template operator()<packet_size<T>>();
    else
      launch.template operator()<1>();
  });
  check_launch();
}

void swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                     const TensorView& d_gate_up, const TensorView& act) {
  with_float_type(act.dtype, [&](auto type) {
    using T = decltype(type);
    const BackwardStrides strides{d_act.row_stride, gate_up.row_stride, d_gate_up.row_stride,
                                  act.row_stride};
    const auto launch = [&]<int width>() {
      const std::int64_t count = act.rows() * (act.cols() / width);
      backward_kernel<T, width><<<num_blocks(count, threads), threads, 0, stream_of(act)>>>(
          pointer<T>(d_act), pointer<T>(gate_up), pointer<T>(d_gate_up), pointer<T>(act), strides,
          act.rows(), act.cols());
    };
    if (in_packets(gate_up, act) && in_packets(d_gate_up, d_act))
      launch.template operator()<packet_size<T>>();
    else
      launch.template operator()<1>();
  });
  check_launch();
}

}  // namespace switchyard::kernels::cuda
