#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows/swiglu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/activation-inl.hpp"
#include "kernels/cpu/rows/swiglu.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

template <class T>
void forward_row(const T* gate, const T* up, T* act, std::int64_t width) {
  for_lanes(width, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto g = load(d, gate + i);
    store(d, hn::Mul(hn::Mul(g, sigmoid(d, g)), load(d, up + i)), act + i);
  });
}

template <class T>
void backward_row(const T* d_act, const T* gate, const T* up, T* d_gate, T* d_up, T* act,
                  std::int64_t width) {
  for_lanes(width, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto g = load(d, gate + i), u = load(d, up + i), gradient = load(d, d_act + i);
    const auto s = sigmoid(d, g);
    const auto silu = hn::Mul(g, s);
    const auto slope = silu_slope(d, g, s);
    store(d, hn::Mul(hn::Mul(gradient, u), slope), d_gate + i);
    store(d, hn::Mul(gradient, silu), d_up + i);
    store(d, hn::Mul(silu, u), act + i);
  });
}

template <class T>
void forward_rows(const TensorView& gate_up, const TensorView& act, std::int64_t begin,
                  std::int64_t end) {
  const Rows<T> in = rows_of<T>(gate_up), out = rows_of<T>(act);
  const std::int64_t width = act.cols();
  for (std::int64_t r = begin; r < end; ++r) forward_row(in[r], in[r] + width, out[r], width);
}

template <class T>
void backward_rows(const TensorView& d_act, const TensorView& gate_up, const TensorView& d_gate_up,
                   const TensorView& act, std::int64_t begin, std::int64_t end) {
  const Rows<T> gradient = rows_of<T>(d_act), in = rows_of<T>(gate_up);
  const Rows<T> d_in = rows_of<T>(d_gate_up), out = rows_of<T>(act);
  const std::int64_t width = act.cols();
  for (std::int64_t r = begin; r < end; ++r)
    backward_row(gradient[r], in[r], in[r] + width, d_in[r], d_in[r] + width, out[r], width);
}

void forward(const TensorView& gate_up, const TensorView& act, std::int64_t begin,
             std::int64_t end) {
  const auto rows = act.dtype == DType::f32 ? forward_rows<float> : forward_rows<BFloat16>;
  rows(gate_up, act, begin, end);
}

void backward(const TensorView& d_act, const TensorView& gate_up, const TensorView& d_gate_up,
              const TensorView& act, std::int64_t begin, std::int64_t end) {
  const auto rows = act.dtype == DType::f32 ? backward_rows<float> : backward_rows<BFloat16>;
  rows(d_act, gate_up, d_gate_up, act, begin, end);
}

void gate_forward(const float* logits, float* gate, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t i)
                   HWY_ATTR { store(d, sigmoid(d, load(d, logits + i)), gate + i); });
}

void gate_backward(const float* dgate, const float* gate, float* dlogits, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto g = load(d, gate + i);
    const auto slope = hn::Mul(g, hn::Sub(hn::Set(d, 1.0f), g));
    store(d, hn::Mul(load(d, dgate + i), slope), dlogits + i);
  });
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(forward);
HWY_EXPORT(backward);
HWY_EXPORT(gate_forward);
HWY_EXPORT(gate_backward);

void swiglu_forward(const TensorView& gate_up, const TensorView& act) {
  parallel_rows(act.rows(), act.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(forward)(gate_up, act, begin, end);
  });
}

void swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                     const TensorView& d_gate_up, const TensorView& act) {
  parallel_rows(act.rows(), act.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(backward)(d_act, gate_up, d_gate_up, act, begin, end);
  });
}

void sigmoid_forward(const TensorView& logits, const TensorView& gate) {
  HWY_DYNAMIC_DISPATCH(gate_forward)(logits.as<float>(), gate.as<float>(), gate.numel());
}

void sigmoid_backward(const TensorView& dgate, const TensorView& gate, const TensorView& dlogits) {
  HWY_DYNAMIC_DISPATCH(gate_backward)
  (dgate.as<float>(), gate.as<float>(), dlogits.as<float>(), gate.numel());
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
