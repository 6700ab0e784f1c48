#include "kernels/cuda/rows/swiglu.hpp"

#include "kernels/cuda/runs.cuh"

namespace switchyard::kernels::cuda {

namespace {

// For bf16 by the card's fast exponential and division: they err by less than 2^-18 of a value that
// counts, which is then rounded to 2^-9.
template <class T>
__device__ float sigmoid(float x) {
  if constexpr (sizeof(T) == 4)
    return 1.0f / (1.0f + expf(-x));
  else
    return __fdividef(1.0f, 1.0f + __expf(-x));
}

template <class T, int width, bool whole>
struct Forward {
  CardRows<T> gate_up, act;
  std::int64_t cols;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    const Run<T, width> gate = load_run<T, width, whole>(gate_up[row] + col, left);
    const Run<T, width> up = load_run<T, width, whole>(gate_up[row] + cols + col, left);
    Run<T, width> out;
#pragma unroll
    for (int j = 0; j < width; ++j) {
      const float g = to_float(gate.values[j]);
      out.values[j] = from_float<T>(g * sigmoid<T>(g) * to_float(up.values[j]));
    }
    store_run<T, width, whole>(act[row] + col, left, out);
  }
};

template <class T, int width, bool whole>
struct Backward {
  CardRows<T> d_act, gate_up, d_gate_up, act;
  std::int64_t cols;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    const Run<T, width> gate = load_run<T, width, whole>(gate_up[row] + col, left);
    const Run<T, width> up = load_run<T, width, whole>(gate_up[row] + cols + col, left);
    const Run<T, width> slope = load_run<T, width, whole>(d_act[row] + col, left);
    Run<T, width> d_gate, d_up, out;
#pragma unroll
    for (int j = 0; j < width; ++j) {
      const float g = to_float(gate.values[j]);
      const float u = to_float(up.values[j]);
      const float d = to_float(slope.values[j]);
      const float s = sigmoid<T>(g);
      const float silu = g * s;
      out.values[j] = from_float<T>(silu * u);
      d_up.values[j] = from_float<T>(d * silu);
      d_gate.values[j] = from_float<T>(d * u * (s + silu * (1.0f - s)));
    }
    store_run<T, width, whole>(d_gate_up[row] + col, left, d_gate);
    store_run<T, width, whole>(d_gate_up[row] + cols + col, left, d_up);
    store_run<T, width, whole>(act[row] + col, left, out);
  }
};

constexpr int gate_threads = 256;

__global__ void gate_forward_kernel(const float* logits, float* gate, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * gate_threads + threadIdx.x;
  if (i < n) gate[i] = sigmoid<float>(logits[i]);
}

__global__ void gate_backward_kernel(const float* dgate, const float* gate, float* dlogits,
                                     std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * gate_threads + threadIdx.x;
  if (i < n) dlogits[i] = dgate[i] * (gate[i] * (1.0f - gate[i]));
}

// Whether gate and up of every row, and the rows of `act`, are whole runs.
template <class T, int width>
bool both_in_runs(const TensorView& gate_up, const TensorView& act) {
  return in_runs<T, width>(gate_up) && in_runs<T, width>(act);
}

}  // namespace

void swiglu_forward(const TensorView& gate_up, const TensorView& act) {
  with_float_type(act.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int width = packet_size<T>;
    const auto launch = [&]<bool whole>() {
      for_each_run<width>(
          stream_of(act), act.rows(), act.cols(),
          Forward<T, width, whole>{card_rows<T>(gate_up), card_rows<T>(act), act.cols()});
    };
    if (both_in_runs<T, width>(gate_up, act))
      launch.template operator()<true>();
    else
      launch.template operator()<false>();
  });
}

void swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                     const TensorView& d_gate_up, const TensorView& act) {
  with_float_type(act.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int width = packet_size<T>;
    const auto launch = [&]<bool whole>() {
      for_each_run<width>(
          stream_of(act), act.rows(), act.cols(),
          Backward<T, width, whole>{card_rows<T>(d_act), card_rows<T>(gate_up),
                                    card_rows<T>(d_gate_up), card_rows<T>(act), act.cols()});
    };
    if (both_in_runs<T, width>(gate_up, act) && both_in_runs<T, width>(d_gate_up, d_act))
      launch.template operator()<true>();
    else
      launch.template operator()<false>();
  });
}

void sigmoid_forward(const TensorView& logits, const TensorView& gate) {
  gate_forward_kernel<<<num_blocks(gate.numel(), gate_threads), gate_threads, 0, stream_of(gate)>>>(
      pointer<float>(logits), pointer<float>(gate), gate.numel());
  check_launch();
}

void sigmoid_backward(const TensorView& dgate, const TensorView& gate, const TensorView& dlogits) {
  gate_backward_kernel<<<num_blocks(gate.numel(), gate_threads), gate_threads, 0,
                         stream_of(gate)>>>(pointer<float>(dgate), pointer<float>(gate),
                                            pointer<float>(dlogits), gate.numel());
  check_launch();
}

}  // namespace switchyard::kernels::cuda
