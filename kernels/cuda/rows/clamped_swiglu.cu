#include "kernels/cuda/rows/clamped_swiglu.hpp"

#include "kernels/cuda/runs.cuh"

namespace switchyard::kernels::cuda {

namespace {

__device__ float within(float value, float low, float high) {
  return value > high ? high : value < low ? low : value;  // a NaN stays
}

__device__ float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

template <class T, int width, bool whole>
struct Forward {
  CardRows<T> gate_up, act;
  std::int64_t cols;
  SwigluClamp clamp;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    const Run<T, width> gate = load_run<T, width, whole>(gate_up[row] + col, left);
    const Run<T, width> up = load_run<T, width, whole>(gate_up[row] + cols + col, left);
    Run<T, width> out;
#pragma unroll
    for (int j = 0; j < width; ++j) {
      const float gate_in = to_float(gate.values[j]);
      const float g = within(gate_in, gate_in, clamp.limit);
      const float u = within(to_float(up.values[j]), -clamp.limit, clamp.limit);
      out.values[j] = from_float<T>(g * sigmoid(clamp.alpha * g) * (u + 1.0f));
    }
    store_run<T, width, whole>(act[row] + col, left, out);
  }
};

template <class T, int width, bool whole>
struct Backward {
  CardRows<T> d_act, gate_up, d_gate_up, act;
  std::int64_t cols;
  SwigluClamp clamp;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    const Run<T, width> gate = load_run<T, width, whole>(gate_up[row] + col, left);
    const Run<T, width> up = load_run<T, width, whole>(gate_up[row] + cols + col, left);
    const Run<T, width> slope = load_run<T, width, whole>(d_act[row] + col, left);
    Run<T, width> d_gate, d_up, out;
#pragma unroll
    for (int j = 0; j < width; ++j) {
      const float gate_in = to_float(gate.values[j]), up_in = to_float(up.values[j]);
      const float d = to_float(slope.values[j]);
      const float g = within(gate_in, gate_in, clamp.limit);
      const float u = within(up_in, -clamp.limit, clamp.limit);
      const float s = sigmoid(clamp.alpha * g);
      const float glu = g * s;
      out.values[j] = from_float<T>(glu * (u + 1.0f));
      d_up.values[j] = from_float<T>(fabsf(up_in) > clamp.limit ? 0.0f : d * glu);
      d_gate.values[j] = from_float<T>(
          gate_in > clamp.limit ? 0.0f
                                : d * (u + 1.0f) * s * (1.0f + clamp.alpha * g * (1.0f - s)));
    }
    store_run<T, width, whole>(d_gate_up[row] + col, left, d_gate);
    store_run<T, width, whole>(d_gate_up[row] + cols + col, left, d_up);
    store_run<T, width, whole>(act[row] + col, left, out);
  }
};

template <class T, int width>
bool both_in_runs(const TensorView& gate_up, const TensorView& act) {
  return in_runs<T, width>(gate_up) && in_runs<T, width>(act);
}

}  // namespace

void clamped_swiglu_forward(const TensorView& gate_up, const SwigluClamp& clamp,
                            const TensorView& act) {
  with_float_type(act.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int width = packet_size<T>;
    const auto launch = [&]<bool whole>() {
      for_each_run<width>(
          stream_of(act), act.rows(), act.cols(),
          Forward<T, width, whole>{card_rows<T>(gate_up), card_rows<T>(act), act.cols(), clamp});
    };
    if (both_in_runs<T, width>(gate_up, act))
      launch.template operator()<true>();
    else
      launch.template operator()<false>();
  });
}

void clamped_swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                             const SwigluClamp& clamp, const TensorView& d_gate_up,
                             const TensorView& act) {
  with_float_type(act.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int width = packet_size<T>;
    const auto launch = [&]<bool whole>() {
      for_each_run<width>(
          stream_of(act), act.rows(), act.cols(),
          Backward<T, width, whole>{card_rows<T>(d_act), card_rows<T>(gate_up),
                                    card_rows<T>(d_gate_up), card_rows<T>(act), act.cols(), clamp});
    };
    if (both_in_runs<T, width>(gate_up, act) && both_in_runs<T, width>(d_gate_up, d_act))
      launch.template operator()<true>();
    else
      launch.template operator()<false>();
  });
}

}  // namespace switchyard::kernels::cuda
