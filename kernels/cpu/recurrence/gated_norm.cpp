#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/recurrence/gated_norm.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <cmath>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/recurrence/gated_norm.hpp"
#include "kernels/cpu/rows/activation-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// f(z) and f'(z).
template <GateFunction gate, class D>
HWY_INLINE hn::Vec<D> gate_of(D d, hn::Vec<D> z) {
  if constexpr (gate == GateFunction::none) return hn::Set(d, 1.0f);
  const auto s = sigmoid(d, z);
  if constexpr (gate == GateFunction::silu) return hn::Mul(z, s);
  return s;
}
template <GateFunction gate, class D>
HWY_INLINE hn::Vec<D> slope_of(D d, hn::Vec<D> z) {
  if constexpr (gate == GateFunction::none) return hn::Zero(d);
  const auto s = sigmoid(d, z);
  if constexpr (gate == GateFunction::silu) return silu_slope(d, z, s);
  return hn::Mul(s, hn::Sub(hn::Set(d, 1.0f), s));
}

// What is normalized: x, or x f(z).
template <GateFunction gate, bool first, class D, class T>
HWY_INLINE hn::Vec<D> inner_of(D d, const T* x, const T* z, std::int64_t i) {
  const auto v = load(d, x + i);
  if constexpr (gate != GateFunction::none && first)
    return hn::Mul(v, gate_of<gate>(d, load(d, z + i)));
  return v;
}

template <GateFunction gate, bool first, class T>
float inverse_rms(const T* x, const T* z, std::int64_t n, float epsilon) {
  const float squares = sum_of(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto v = inner_of<gate, first>(d, x, z, i);
    return hn::Mul(v, v);
  });
  return 1.0f / std::sqrt(squares / static_cast<float>(n) + epsilon);
}

template <GateFunction gate, bool first, class T>
void forward_row(const T* x, const T* z, const float* weight, T* y, std::int64_t n, float epsilon) {
  const float rstd = inverse_rms<gate, first>(x, z, n, epsilon);
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto normed = hn::Mul(inner_of<gate, first>(d, x, z, i), hn::Set(d, rstd));
    auto result = hn::Mul(normed, load(d, weight + i));
    if constexpr (gate != GateFunction::none && !first)
      result = hn::Mul(result, gate_of<gate>(d, load(d, z + i)));
    store(d, result, y + i);
  });
}

// e: gradient of n(.) weight, that is dy, or dy f(z) where the gate comes behind.
template <GateFunction gate, bool first, class D, class T>
HWY_INLINE hn::Vec<D> outer_of(D d, const T* dy, const T* z, std::int64_t i) {
  const auto gradient = load(d, dy + i);
  if constexpr (gate != GateFunction::none && !first)
    return hn::Mul(gradient, gate_of<gate>(d, load(d, z + i)));
  return gradient;
}

template <GateFunction gate, bool first, class T>
void backward_row(const T* dy, const T* x, const T* z, const float* weight, T* dx, T* dz,
                  float* dweight, std::int64_t n, float epsilon) {
  const float rstd = inverse_rms<gate, first>(x, z, n, epsilon);
  const float sum = sum_of(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto e = hn::Mul(outer_of<gate, first>(d, dy, z, i), load(d, weight + i));
    return hn::Mul(e, inner_of<gate, first>(d, x, z, i));
  });
  const float mean = sum * rstd / static_cast<float>(n);
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto e = outer_of<gate, first>(d, dy, z, i);
    const auto normed = hn::Mul(inner_of<gate, first>(d, x, z, i), hn::Set(d, rstd));
    const auto w = load(d, weight + i);
    // Of what is normalized.
    const auto inner =
        hn::Mul(hn::NegMulAdd(normed, hn::Set(d, mean), hn::Mul(e, w)), hn::Set(d, rstd));
    store(d, hn::MulAdd(e, normed, load(d, dweight + i)), dweight + i);
    if constexpr (gate == GateFunction::none) {
      store(d, inner, dx + i);
    } else {
      const auto gate_in = load(d, z + i), value = load(d, x + i), gradient = load(d, dy + i);
      const auto slope = slope_of<gate>(d, gate_in);
      if constexpr (first) {
        store(d, hn::Mul(hn::Mul(inner, value), slope), dz + i);
        store(d, hn::Mul(inner, gate_of<gate>(d, gate_in)), dx + i);
      } else {
        store(d, hn::Mul(hn::Mul(gradient, hn::Mul(normed, w)), slope), dz + i);
        store(d, inner, dx + i);
      }
    }
  });
}

// Calls body.template operator()<gate, first>() for the norm's kind.
template <class Body>
void with_kind(const GatedNorm& norm, Body&& body) {
  switch (norm.gate) {
    case GateFunction::none:
      return body.template operator()<GateFunction::none, false>();
    case GateFunction::sigmoid:
      return norm.gate_first ? body.template operator()<GateFunction::sigmoid, true>()
                             : body.template operator()<GateFunction::sigmoid, false>();
    case GateFunction::silu:
      return norm.gate_first ? body.template operator()<GateFunction::silu, true>()
                             : body.template operator()<GateFunction::silu, false>();
  }
}

// weight: of all norms of a row, or the part of each.
template <class T>
void forward_rows(const GatedNorm& norm, const TensorView& x, const TensorView& z,
                  const TensorView& weight, const TensorView& y, std::int64_t begin,
                  std::int64_t end) {
  const Rows<T> in = rows_of<T>(x), out = rows_of<T>(y);
  const Rows<T> gates = z.empty() ? in : rows_of<T>(z);
  const float* const weights = weight.as<float>();
  const std::int64_t stride = weight.numel() == x.cols() ? 1 : 0;
  with_kind(norm, [&]<GateFunction gate, bool first>() {
    for (std::int64_t t = begin; t < end; ++t)
      for (std::int64_t c = 0; c < x.cols(); c += norm.width)
        forward_row<gate, first>(in[t] + c, gates[t] + c, weights + stride * c, out[t] + c,
                                 norm.width, norm.epsilon);
  });
}

template <class T>
void backward_rows(const GatedNorm& norm, const TensorView& dy, const TensorView& x,
                   const TensorView& z, const TensorView& weight, const TensorView& dx,
                   const TensorView& dz, float* dweight, std::int64_t begin, std::int64_t end) {
  const Rows<T> gradient = rows_of<T>(dy), in = rows_of<T>(x), d_in = rows_of<T>(dx);
  const Rows<T> gates = z.empty() ? in : rows_of<T>(z), d_gates = z.empty() ? d_in : rows_of<T>(dz);
  const float* const weights = weight.as<float>();
  const std::int64_t stride = weight.numel() == x.cols() ? 1 : 0;
  with_kind(norm, [&]<GateFunction gate, bool first>() {
    for (std::int64_t t = begin; t < end; ++t)
      for (std::int64_t c = 0; c < x.cols(); c += norm.width)
        backward_row<gate, first>(gradient[t] + c, in[t] + c, gates[t] + c, weights + stride * c,
                                  d_in[t] + c, d_gates[t] + c, dweight + stride * c, norm.width,
                                  norm.epsilon);
  });
}

void forward(const GatedNorm& norm, const TensorView& x, const TensorView& z,
             const TensorView& weight, const TensorView& y, std::int64_t begin, std::int64_t end) {
  const auto rows = x.dtype == DType::f32 ? forward_rows<float> : forward_rows<BFloat16>;
  rows(norm, x, z, weight, y, begin, end);
}

void backward(const GatedNorm& norm, const TensorView& dy, const TensorView& x, const TensorView& z,
              const TensorView& weight, const TensorView& dx, const TensorView& dz, float* dweight,
              std::int64_t begin, std::int64_t end) {
  const auto rows = x.dtype == DType::f32 ? backward_rows<float> : backward_rows<BFloat16>;
  rows(norm, dy, x, z, weight, dx, dz, dweight, begin, end);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/cpu/rows/elementwise.hpp"

namespace switchyard::kernels::cpu {

HWY_EXPORT(forward);
HWY_EXPORT(backward);

void gated_norm_forward(const GatedNorm& norm, const TensorView& x, const TensorView& z,
                        const TensorView& weight, const TensorView& y) {
  const auto rows = HWY_DYNAMIC_DISPATCH(forward);
  parallel_rows(x.rows(), x.cols(), [&](std::int64_t begin, std::int64_t end) {
    rows(norm, x, z, weight, y, begin, end);
  });
}

void gated_norm_backward(const GatedNorm& norm, const TensorView& dy, const TensorView& x,
                         const TensorView& z, const TensorView& weight, const TensorView& dx,
                         const TensorView& dz, const TensorView& dweight,
                         const TensorView& workspace) {
  const auto rows = HWY_DYNAMIC_DISPATCH(backward);
  float* const partials = reinterpret_cast<float*>(workspace.as<std::uint8_t>());
  const std::int64_t per_chunk = (x.rows() + gated_norm_row_chunks - 1) / gated_norm_row_chunks;
  const std::int64_t num_chunks = (x.rows() + per_chunk - 1) / per_chunk;
  parallel_blocks(x.rows(), per_chunk, [&](std::int64_t begin, std::int64_t end) {
    float* const partial = partials + begin / per_chunk * weight.numel();
    std::fill_n(partial, weight.numel(), 0.0f);
    rows(norm, dy, x, z, weight, dx, dz, partial, begin, end);
  });
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk)
    accumulate_span(dweight.as<float>(), partials + chunk * weight.numel(), weight.numel());
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
