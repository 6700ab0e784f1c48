#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows/rms_norm.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <cmath>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/rms_norm.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

inline float inverse_rms(float sum_of_squares, std::int64_t hidden, float epsilon) {
  return 1.0f / std::sqrt(sum_of_squares / static_cast<float>(hidden) + epsilon);
}

template <class T>
void normalize(const T* x, const float* weight, float rstd, T* y, std::int64_t hidden) {
  for_lanes(hidden, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto normalized = hn::Mul(load(d, x + i), hn::Set(d, rstd));
    store(d, hn::Mul(normalized, load(d, weight + i)), y + i);
  });
}

template <class T>
float forward_row(const T* x, const float* weight, float epsilon, T* y, std::int64_t hidden) {
  const float squares = sum_of(hidden, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto v = load(d, x + i);
    return hn::Mul(v, v);
  });
  const float rstd = inverse_rms(squares, hidden, epsilon);
  normalize(x, weight, rstd, y, hidden);
  return rstd;
}

template <class T>
float add_forward_row(const T* x, const T* delta, const float* weight, float epsilon, T* sum, T* y,
                      std::int64_t hidden) {
  const float squares = sum_of(hidden, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto v = rounded_to(d, hn::Add(load(d, x + i), load(d, delta + i)), sum);
    store(d, v, sum + i);
    return hn::Mul(v, v);
  });
  const float rstd = inverse_rms(squares, hidden, epsilon);
  normalize(sum, weight, rstd, y, hidden);
  return rstd;
}

// With n = x rstd: dx = rstd (dy weight - n mean(dy weight n)) + residual, dweight += dy n.
template <class T>
void backward_row(const T* dy, const T* x, const float* weight, float rstd, const T* residual,
                  T* dx, float* dweight, std::int64_t hidden) {
  const float dot = sum_of(hidden, [=](auto d, std::int64_t i) HWY_ATTR {
    return hn::Mul(hn::Mul(load(d, dy + i), load(d, weight + i)), load(d, x + i));
  });
  const float mean = dot * rstd / static_cast<float>(hidden);
  for_lanes(hidden, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto gradient = load(d, dy + i);
    const auto normalized = hn::Mul(load(d, x + i), hn::Set(d, rstd));
    const auto inner =
        hn::NegMulAdd(normalized, hn::Set(d, mean), hn::Mul(gradient, load(d, weight + i)));
    auto result = hn::Mul(inner, hn::Set(d, rstd));
    if (residual != nullptr) result = hn::Add(result, load(d, residual + i));
    store(d, result, dx + i);
    store(d, hn::MulAdd(gradient, normalized, load(d, dweight + i)), dweight + i);
  });
}

// The rows begin ... end - 1 of each operation, in the element type of x.
template <class T>
void forward_rows(const TensorView& x, const float* weight, float epsilon, const TensorView& y,
                  float* rstd, std::int64_t begin, std::int64_t end) {
  const Rows<T> in = rows_of<T>(x), out = rows_of<T>(y);
  for (std::int64_t t = begin; t < end; ++t)
    rstd[t] = forward_row(in[t], weight, epsilon, out[t], x.cols());
}

template <class T>
void add_forward_rows(const TensorView& x, const TensorView& delta, const float* weight,
                      float epsilon, const TensorView& sum, const TensorView& y, float* rstd,
                      std::int64_t begin, std::int64_t end) {
  const Rows<T> a = rows_of<T>(x), b = rows_of<T>(delta), s = rows_of<T>(sum), out = rows_of<T>(y);
  for (std::int64_t t = begin; t < end; ++t)
    rstd[t] = add_forward_row(a[t], b[t], weight, epsilon, s[t], out[t], x.cols());
}

template <class T>
void backward_rows(const TensorView& dy, const TensorView& x, const float* weight,
                   const float* rstd, const TensorView& residual, const TensorView& dx,
                   float* dweight, std::int64_t begin, std::int64_t end) {
  const Rows<T> gradient = rows_of<T>(dy), in = rows_of<T>(x), out = rows_of<T>(dx);
  const bool adds = !residual.empty();
  const Rows<T> extra = adds ? rows_of<T>(residual) : Rows<T>{nullptr, 0};
  for (std::int64_t t = begin; t < end; ++t)
    backward_row<T>(gradient[t], in[t], weight, rstd[t], adds ? extra[t] : nullptr, out[t], dweight,
                    x.cols());
}

void forward(const TensorView& x, const float* weight, float epsilon, const TensorView& y,
             float* rstd, std::int64_t begin, std::int64_t end) {
  const auto rows = x.dtype == DType::f32 ? forward_rows<float> : forward_rows<BFloat16>;
  rows(x, weight, epsilon, y, rstd, begin, end);
}

void add_forward(const TensorView& x, const TensorView& delta, const float* weight, float epsilon,
                 const TensorView& sum, const TensorView& y, float* rstd, std::int64_t begin,
                 std::int64_t end) {
  const auto rows = x.dtype == DType::f32 ? add_forward_rows<float> : add_forward_rows<BFloat16>;
  rows(x, delta, weight, epsilon, sum, y, rstd, begin, end);
}

void backward(const TensorView& dy, const TensorView& x, const float* weight, const float* rstd,
              const TensorView& residual, const TensorView& dx, float* dweight, std::int64_t begin,
              std::int64_t end) {
  const auto rows = x.dtype == DType::f32 ? backward_rows<float> : backward_rows<BFloat16>;
  rows(dy, x, weight, rstd, residual, dx, dweight, begin, end);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/cpu/rows/elementwise.hpp"
#include "kernels/cpu/sums/fixed_point.hpp"

namespace switchyard::kernels::cpu {

HWY_EXPORT(forward);
HWY_EXPORT(add_forward);
HWY_EXPORT(backward);

void rms_norm_forward(const TensorView& x, const TensorView& weight, float epsilon,
                      const TensorView& y, const TensorView& rstd) {
  const auto rows = HWY_DYNAMIC_DISPATCH(forward);
  parallel_rows(x.rows(), x.cols(), [&](std::int64_t begin, std::int64_t end) {
    rows(x, weight.as<float>(), epsilon, y, rstd.as<float>(), begin, end);
  });
}

void add_rms_norm_forward(const TensorView& x, const TensorView& delta, const TensorView& weight,
                          float epsilon, const TensorView& sum, const TensorView& y,
                          const TensorView& rstd) {
  const auto rows = HWY_DYNAMIC_DISPATCH(add_forward);
  parallel_rows(x.rows(), x.cols(), [&](std::int64_t begin, std::int64_t end) {
    rows(x, delta, weight.as<float>(), epsilon, sum, y, rstd.as<float>(), begin, end);
  });
}

namespace {

using BackwardRows = void (*)(const TensorView&, const TensorView&, const float*, const float*,
                              const TensorView&, const TensorView&, float*, std::int64_t,
                              std::int64_t);

struct Backward {
  BackwardRows rows;
  const TensorView &dy, &x, &weight, &rstd, &residual_gradient, &dx;
  // The gradient of the weight is added to dweight.
  void operator()(float* dweight, std::int64_t begin, std::int64_t end) const {
    rows(dy, x, weight.as<float>(), rstd.as<float>(), residual_gradient, dx, dweight, begin, end);
  }
};

void add_in_fp32(const Backward& run, float* total, float* partials) {
  const std::int64_t tokens = run.x.rows(), hidden = run.x.cols();
  const std::int64_t per_chunk = (tokens + rms_norm_row_chunks - 1) / rms_norm_row_chunks;
  const std::int64_t num_chunks = (tokens + per_chunk - 1) / per_chunk;
  parallel_blocks(tokens, per_chunk, [&](std::int64_t begin, std::int64_t end) {
    float* partial = partials + begin / per_chunk * hidden;
    std::fill_n(partial, hidden, 0.0f);
    run(partial, begin, end);
  });
  parallel_blocks(hidden, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk)
      accumulate_span(total + begin, partials + chunk * hidden + begin, end - begin);
  });
}

// Each thread has whole numbers of its own, and behind them the term at hand.
void add_exactly(const Backward& run, const GradientSum& dweight, std::int64_t* workspace) {
  const std::int64_t tokens = run.x.rows(), hidden = run.x.cols();
  const std::int64_t unit_rows = dweight.exact.unit_rows;
  const std::int64_t terms_of_unit = (unit_rows + rms_norm_term_rows - 1) / rms_norm_term_rows;
  const std::int64_t num_units = (tokens + unit_rows - 1) / unit_rows;
  const FixedScale rule(dweight.exact, terms_of_unit);
  const int threads = num_threads();
  float* const terms = reinterpret_cast<float*>(workspace + threads * hidden);
  std::fill_n(workspace, threads * hidden, 0);
  for_each_piece(num_units * terms_of_unit, [&](std::int64_t i, int thread) {
    const std::int64_t unit = i / terms_of_unit;
    const std::int64_t begin = unit * unit_rows + i % terms_of_unit * rms_norm_term_rows;
    const std::int64_t end = std::min({begin + rms_norm_term_rows, (unit + 1) * unit_rows, tokens});
    if (begin >= end) return;
    float* const term = terms + thread * hidden;
    std::fill_n(term, hidden, 0.0f);
    run(term, begin, end);
    if (!add_fixed(term, hidden, rule, workspace + thread * hidden)) tell_overflow(dweight.exact);
  });
  for (int thread = 0; thread < threads; ++thread)
    add_whole(workspace + thread * hidden, hidden, dweight.view.as<std::int64_t>());
}

}  // namespace

void rms_norm_backward(const TensorView& dy, const TensorView& x, const TensorView& weight,
                       const TensorView& rstd, const TensorView& residual_gradient,
                       const TensorView& dx, const GradientSum& dweight,
                       const TensorView& workspace) {
  const Backward run{HWY_DYNAMIC_DISPATCH(backward), dy, x, weight, rstd, residual_gradient, dx};
  // Memory of the device starts at a multiple of 64 bytes.
  std::uint8_t* const room = workspace.as<std::uint8_t>();
  if (dweight.is_exact())
    add_exactly(run, dweight, reinterpret_cast<std::int64_t*>(room));
  else
    add_in_fp32(run, dweight.view.as<float>(), reinterpret_cast<float*>(room));
}

std::int64_t rms_norm_workspace_bytes(std::int64_t hidden, int num_threads) {
  return hidden * std::max(rms_norm_row_chunks * size_of(DType::f32),
                           num_threads * (size_of(DType::i64) + size_of(DType::f32)));
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
