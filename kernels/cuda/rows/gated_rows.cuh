// The loop of activations of two halves of a row: out = f(gate, up), with gate in the first columns
// of gate_up and up in the others. An Activation<T> computes one element in fp32:
//   float value(float gate, float up) const
//   GatedElement gradient(float d_act, float gate, float up) const
#pragma once

#include "kernels/cuda/runs.cuh"

namespace switchyard::kernels::cuda {

struct GatedElement {
  float act, d_gate, d_up;
};

template <class T, int width, bool whole, class Activation>
struct GatedForward {
  CardRows<T> gate_up, act;
  std::int64_t cols;
  Activation activation;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    const Run<T, width> gate = load_run<T, width, whole>(gate_up[row] + col, left);
    const Run<T, width> up = load_run<T, width, whole>(gate_up[row] + cols + col, left);
    Run<T, width> out;
#pragma unroll
    for (int j = 0; j < width; ++j)
      out.values[j] =
          from_float<T>(activation.value(to_float(gate.values[j]), to_float(up.values[j])));
    store_run<T, width, whole>(act[row] + col, left, out);
  }
};

template <class T, int width, bool whole, class Activation>
struct GatedBackward {
  CardRows<T> d_act, gate_up, d_gate_up, act;
  std::int64_t cols;
  Activation activation;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    const Run<T, width> gate = load_run<T, width, whole>(gate_up[row] + col, left);
    const Run<T, width> up = load_run<T, width, whole>(gate_up[row] + cols + col, left);
    const Run<T, width> slope = load_run<T, width, whole>(d_act[row] + col, left);
    Run<T, width> d_gate, d_up, out;
#pragma unroll
    for (int j = 0; j < width; ++j) {
      const GatedElement element = activation.gradient(
          to_float(slope.values[j]), to_float(gate.values[j]), to_float(up.values[j]));
      out.values[j] = from_float<T>(element.act);
      d_up.values[j] = from_float<T>(element.d_up);
      d_gate.values[j] = from_float<T>(element.d_gate);
    }
    store_run<T, width, whole>(d_gate_up[row] + col, left, d_gate);
    store_run<T, width, whole>(d_gate_up[row] + cols + col, left, d_up);
    store_run<T, width, whole>(act[row] + col, left, out);
  }
};

// Whether gate and up of every row, and the rows of `act`, are whole runs.
template <class T, int width>
bool both_in_runs(const TensorView& gate_up, const TensorView& act) {
  return in_runs<T, width>(gate_up) && in_runs<T, width>(act);
}

// make(T{}): the activation for elements of type T.
template <class Make>
void gated_forward(const TensorView& gate_up, const TensorView& act, const Make& make) {
  with_float_type(act.dtype, [&](auto type) {
    using T = decltype(type);
    using Activation = decltype(make(type));
    constexpr int width = packet_size<T>;
    const auto launch = [&]<bool whole>() {
      for_each_run<width>(stream_of(act), act.rows(), act.cols(),
                          GatedForward<T, width, whole, Activation>{
                              card_rows<T>(gate_up), card_rows<T>(act), act.cols(), make(type)});
    };
    if (both_in_runs<T, width>(gate_up, act))
      launch.template operator()<true>();
    else
      launch.template operator()<false>();
  });
}

template <class Make>
void gated_backward(const TensorView& d_act, const TensorView& gate_up, const TensorView& d_gate_up,
                    const TensorView& act, const Make& make) {
  with_float_type(act.dtype, [&](auto type) {
    using T = decltype(type);
    using Activation = decltype(make(type));
    constexpr int width = packet_size<T>;
    const auto launch = [&]<bool whole>() {
      for_each_run<width>(stream_of(act), act.rows(), act.cols(),
                          GatedBackward<T, width, whole, Activation>{
                              card_rows<T>(d_act), card_rows<T>(gate_up), card_rows<T>(d_gate_up),
                              card_rows<T>(act), act.cols(), make(type)});
    };
    if (both_in_runs<T, width>(gate_up, act) && both_in_runs<T, width>(d_gate_up, d_act))
      launch.template operator()<true>();
    else
      launch.template operator()<false>();
  });
}

}  // namespace switchyard::kernels::cuda
