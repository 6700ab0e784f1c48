#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/recurrence/feature_map.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <cmath>

#include "kernels/cpu/element.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/recurrence/feature_map.hpp"
#include "kernels/cpu/rows/activation-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

constexpr float unit_epsilon = 1e-6f;
constexpr float half_root = 0.70710678f;  // sqrt(1/2)

template <class T>
void silu(const T* x, T* y, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto v = load(d, x + i);
    store(d, hn::Mul(v, sigmoid(d, v)), y + i);
  });
}

template <class T>
void silu_backward(const T* dy, const T* x, T* dx, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto v = load(d, x + i);
    store(d, hn::Mul(load(d, dy + i), silu_slope(d, v, sigmoid(d, v))), dx + i);
  });
}

template <class T>
void elu(const T* x, T* y, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto v = load(d, x + i);
    const auto below = exp_of(d, hn::Min(v, hn::Zero(d)));
    store(d, hn::IfThenElse(hn::Gt(v, hn::Zero(d)), hn::Add(v, hn::Set(d, 1.0f)), below), y + i);
  });
}

template <class T>
void elu_backward(const T* dy, const T* x, T* dx, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto v = load(d, x + i);
    const auto slope = exp_of(d, hn::Min(v, hn::Zero(d)));
    store(d, hn::Mul(load(d, dy + i), slope), dx + i);
  });
}

// 1 / sqrt(sum silu(x)^2 + epsilon)
template <class T>
float inverse_length(const T* x, std::int64_t n) {
  const float squares = sum_of(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto v = load(d, x + i);
    const auto a = hn::Mul(v, sigmoid(d, v));
    return hn::Mul(a, a);
  });
  return 1.0f / std::sqrt(squares + unit_epsilon);
}

template <class T>
void silu_unit(const T* x, T* y, std::int64_t n) {
  const float inverse = inverse_length(x, n);
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto v = load(d, x + i);
    store(d, hn::Mul(hn::Mul(v, sigmoid(d, v)), hn::Set(d, inverse)), y + i);
  });
}

// With y = a r: da = r (dy - y (y . dy)).
template <class T>
void silu_unit_backward(const T* dy, const T* x, T* dx, std::int64_t n) {
  const float inverse = inverse_length(x, n);
  const float along = inverse * sum_of(n, [=](auto d, std::int64_t i) HWY_ATTR {
                        const auto v = load(d, x + i);
                        return hn::Mul(hn::Mul(v, sigmoid(d, v)), load(d, dy + i));
                      });
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto v = load(d, x + i);
    const auto s = sigmoid(d, v);
    const auto y = hn::Mul(hn::Mul(v, s), hn::Set(d, inverse));
    const auto across = hn::NegMulAdd(y, hn::Set(d, along), load(d, dy + i));
    const auto da = hn::Mul(across, hn::Set(d, inverse));
    store(d, hn::Mul(da, silu_slope(d, v, s)), dx + i);
  });
}

template <class T>
float inverse_length_of(const T* x, std::int64_t n) {
  const float squares = sum_of(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto v = load(d, x + i);
    return hn::Mul(v, v);
  });
  return 1.0f / std::sqrt(squares + unit_epsilon);
}

template <class T>
void unit(const T* x, T* y, std::int64_t n) {
  const float inverse = inverse_length_of(x, n);
  for_lanes(n, [=](auto d, std::int64_t i)
                   HWY_ATTR { store(d, hn::Mul(load(d, x + i), hn::Set(d, inverse)), y + i); });
}

template <class T>
void unit_backward(const T* dy, const T* x, T* dx, std::int64_t n) {
  const float inverse = inverse_length_of(x, n);
  const float along = inverse * inverse * sum_of(n, [=](auto d, std::int64_t i) HWY_ATTR {
                        return hn::Mul(load(d, x + i), load(d, dy + i));
                      });
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto across = hn::NegMulAdd(load(d, x + i), hn::Set(d, along), load(d, dy + i));
    store(d, hn::Mul(across, hn::Set(d, inverse)), dx + i);
  });
}

// The products a_i a_j with j >= i, row by row.
template <class T>
void taylor(const T* x, T* y, std::int64_t n) {
  const float root = 1.0f / std::sqrt(static_cast<float>(n));  // of a_i a_j = root x_i x_j
  const float first = std::sqrt(root);
  put(1.0f, *y++);
  for (std::int64_t i = 0; i < n; ++i) put(first * value_of(x[i]), *y++);
  for (std::int64_t i = 0; i < n; ++i) {
    const float scaled = root * value_of(x[i]);
    put(scaled * value_of(x[i]) * half_root, *y++);
    for (std::int64_t j = i + 1; j < n; ++j) put(scaled * value_of(x[j]), *y++);
  }
}

// dx_i = root (sum over j != i of dy_ij x_j + sqrt(2) dy_ii x_i) + sqrt(root) dy_i
template <class T>
void taylor_backward(const T* dy, const T* x, T* dx, std::int64_t n) {
  const float root = 1.0f / std::sqrt(static_cast<float>(n));
  const float first = std::sqrt(root);
  const T* const products = dy + 1 + n;
  const auto row_begin = [n](std::int64_t i) { return i * n - i * (i - 1) / 2; };
  for (std::int64_t i = 0; i < n; ++i) {
    float sum = 2 * half_root * value_of(products[row_begin(i)]) * value_of(x[i]);
    for (std::int64_t j = 0; j < i; ++j)
      sum += value_of(products[row_begin(j) + i - j]) * value_of(x[j]);
    for (std::int64_t j = i + 1; j < n; ++j)
      sum += value_of(products[row_begin(i) + j - i]) * value_of(x[j]);
    put(root * sum + first * value_of(dy[1 + i]), dx[i]);
  }
}

template <class T>
void forward_head(FeatureMap map, const T* x, T* y, std::int64_t n) {
  switch (map) {
    case FeatureMap::identity:
      return;
    case FeatureMap::silu:
      return silu(x, y, n);
    case FeatureMap::elu_plus_one:
      return elu(x, y, n);
    case FeatureMap::silu_unit:
      return silu_unit(x, y, n);
    case FeatureMap::unit:
      return unit(x, y, n);
    case FeatureMap::taylor:
      return taylor(x, y, n);
  }
}

template <class T>
void backward_head(FeatureMap map, const T* dy, const T* x, T* dx, std::int64_t n) {
  switch (map) {
    case FeatureMap::identity:
      return;
    case FeatureMap::silu:
      return silu_backward(dy, x, dx, n);
    case FeatureMap::elu_plus_one:
      return elu_backward(dy, x, dx, n);
    case FeatureMap::silu_unit:
      return silu_unit_backward(dy, x, dx, n);
    case FeatureMap::unit:
      return unit_backward(dy, x, dx, n);
    case FeatureMap::taylor:
      return taylor_backward(dy, x, dx, n);
  }
}

template <class T>
void forward_rows(FeatureMap map, const TensorView& x, std::int64_t width, const TensorView& y,
                  std::int64_t begin, std::int64_t end) {
  const Rows<T> in = rows_of<T>(x), out = rows_of<T>(y);
  const std::int64_t features = feature_width(map, width);
  for (std::int64_t t = begin; t < end; ++t)
    for (std::int64_t h = 0; h < x.cols() / width; ++h)
      forward_head(map, in[t] + h * width, out[t] + h * features, width);
}

template <class T>
void backward_rows(FeatureMap map, const TensorView& dy, const TensorView& x, std::int64_t width,
                   const TensorView& dx, std::int64_t begin, std::int64_t end) {
  const Rows<T> gradient = rows_of<T>(dy), in = rows_of<T>(x), out = rows_of<T>(dx);
  const std::int64_t features = feature_width(map, width);
  for (std::int64_t t = begin; t < end; ++t)
    for (std::int64_t h = 0; h < x.cols() / width; ++h)
      backward_head(map, gradient[t] + h * features, in[t] + h * width, out[t] + h * width, width);
}

void forward(FeatureMap map, const TensorView& x, std::int64_t width, const TensorView& y,
             std::int64_t begin, std::int64_t end) {
  const auto rows = x.dtype == DType::f32 ? forward_rows<float> : forward_rows<BFloat16>;
  rows(map, x, width, y, begin, end);
}

void backward(FeatureMap map, const TensorView& dy, const TensorView& x, std::int64_t width,
              const TensorView& dx, std::int64_t begin, std::int64_t end) {
  const auto rows = x.dtype == DType::f32 ? backward_rows<float> : backward_rows<BFloat16>;
  rows(map, dy, x, width, dx, begin, end);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(forward);
HWY_EXPORT(backward);

void feature_map_forward(FeatureMap map, const TensorView& x, std::int64_t width,
                         const TensorView& y) {
  const auto rows = HWY_DYNAMIC_DISPATCH(forward);
  parallel_rows(x.rows(), x.cols() / width * feature_width(map, width),
                [&](std::int64_t begin, std::int64_t end) { rows(map, x, width, y, begin, end); });
}

void feature_map_backward(FeatureMap map, const TensorView& dy, const TensorView& x,
                          std::int64_t width, const TensorView& dx) {
  const auto rows = HWY_DYNAMIC_DISPATCH(backward);
  parallel_rows(
      x.rows(), x.cols() / width * feature_width(map, width),
      [&](std::int64_t begin, std::int64_t end) { rows(map, dy, x, width, dx, begin, end); });
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
