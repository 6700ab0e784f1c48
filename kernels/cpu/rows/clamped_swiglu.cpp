#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows/clamped_swiglu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/activation-inl.hpp"
#include "kernels/cpu/rows/clamped_swiglu.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

template <class T>
void forward_row(const T* gate, const T* up, T* act, SwigluClamp clamp, std::int64_t width) {
  for_lanes(width, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto limit = hn::Set(d, clamp.limit), one = hn::Set(d, 1.0f);
    const auto gate_in = load(d, gate + i), up_in = load(d, up + i);
    // Comparisons, since the order of Min's operands says what becomes of a NaN: it stays.
    const auto g = hn::IfThenElse(hn::Gt(gate_in, limit), limit, gate_in);
    const auto below = hn::IfThenElse(hn::Gt(up_in, limit), limit, up_in);
    const auto u = hn::IfThenElse(hn::Lt(below, hn::Neg(limit)), hn::Neg(limit), below);
    const auto s = sigmoid(d, hn::Mul(g, hn::Set(d, clamp.alpha)));
    store(d, hn::Mul(hn::Mul(g, s), hn::Add(u, one)), act + i);
  });
}

template <class T>
void backward_row(const T* d_act, const T* gate, const T* up, T* d_gate, T* d_up, T* act,
                  SwigluClamp clamp, std::int64_t width) {
  for_lanes(width, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto limit = hn::Set(d, clamp.limit), one = hn::Set(d, 1.0f), zero = hn::Zero(d);
    const auto alpha = hn::Set(d, clamp.alpha);
    const auto gate_in = load(d, gate + i), up_in = load(d, up + i);
    const auto gradient = load(d, d_act + i);
    const auto gate_beyond = hn::Gt(gate_in, limit);
    const auto up_beyond = hn::Gt(hn::Abs(up_in), limit);
    const auto g = hn::IfThenElse(gate_beyond, limit, gate_in);
    const auto u = hn::IfThenElse(up_beyond, hn::CopySign(limit, up_in), up_in);
    const auto ag = hn::Mul(g, alpha), s = sigmoid(d, ag);
    const auto glu = hn::Mul(g, s), factor = hn::Add(u, one);
    // (g s(alpha g))' has the form of silu's.
    const auto slope = hn::Mul(hn::Mul(gradient, factor), silu_slope(d, ag, s));
    store(d, hn::IfThenElse(gate_beyond, zero, slope), d_gate + i);
    store(d, hn::IfThenElse(up_beyond, zero, hn::Mul(gradient, glu)), d_up + i);
    store(d, hn::Mul(glu, factor), act + i);
  });
}

template <class T>
void forward_rows(const TensorView& gate_up, const SwigluClamp& clamp, const TensorView& act,
                  std::int64_t begin, std::int64_t end) {
  const Rows<T> in = rows_of<T>(gate_up), out = rows_of<T>(act);
  const std::int64_t width = act.cols();
  for (std::int64_t r = begin; r < end; ++r)
    forward_row(in[r], in[r] + width, out[r], clamp, width);
}

template <class T>
void backward_rows(const TensorView& d_act, const TensorView& gate_up, const SwigluClamp& clamp,
                   const TensorView& d_gate_up, const TensorView& act, std::int64_t begin,
                   std::int64_t end) {
  const Rows<T> gradient = rows_of<T>(d_act), in = rows_of<T>(gate_up);
  const Rows<T> d_in = rows_of<T>(d_gate_up), out = rows_of<T>(act);
  const std::int64_t width = act.cols();
  for (std::int64_t r = begin; r < end; ++r)
    backward_row(gradient[r], in[r], in[r] + width, d_in[r], d_in[r] + width, out[r], clamp, width);
}

void forward(const TensorView& gate_up, const SwigluClamp& clamp, const TensorView& act,
             std::int64_t begin, std::int64_t end) {
  const auto rows = act.dtype == DType::f32 ? forward_rows<float> : forward_rows<BFloat16>;
  rows(gate_up, clamp, act, begin, end);
}

void backward(const TensorView& d_act, const TensorView& gate_up, const SwigluClamp& clamp,
              const TensorView& d_gate_up, const TensorView& act, std::int64_t begin,
              std::int64_t end) {
  const auto rows = act.dtype == DType::f32 ? backward_rows<float> : backward_rows<BFloat16>;
  rows(d_act, gate_up, clamp, d_gate_up, act, begin, end);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(forward);
HWY_EXPORT(backward);

void clamped_swiglu_forward(const TensorView& gate_up, const SwigluClamp& clamp,
                            const TensorView& act) {
  parallel_rows(act.rows(), act.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(forward)(gate_up, clamp, act, begin, end);
  });
}

void clamped_swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                             const SwigluClamp& clamp, const TensorView& d_gate_up,
                             const TensorView& act) {
  parallel_rows(act.rows(), act.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(backward)(d_act, gate_up, clamp, d_gate_up, act, begin, end);
  });
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
