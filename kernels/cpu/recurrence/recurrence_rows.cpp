#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/recurrence/recurrence_rows.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include "kernels/cpu/recurrence/recurrence_rows.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

void zero_span(float* x, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t j) HWY_ATTR { store(d, hn::Zero(d), x + j); });
}

void decay(float* pairs, std::int64_t n, const float* sums, bool strict) {
  for (std::int64_t i = 0; i < n; ++i) {
    float* const row = pairs + i * n;
    const std::int64_t end = strict ? i : i + 1;
    if (sums != nullptr) {
      const float own = sums[i];
      for_lanes(end, [=](auto d, std::int64_t j) HWY_ATTR {
        const auto factor = exp_of(d, hn::Sub(hn::Set(d, own), load(d, sums + j)));
        store(d, hn::Mul(load(d, row + j), factor), row + j);
      });
    }
    zero_span(row + end, n - end);
  }
}

void scaled(const float* x, std::int64_t n, float factor, float* to) {
  for_lanes(n, [=](auto d, std::int64_t i)
                   HWY_ATTR { store(d, hn::Mul(load(d, x + i), hn::Set(d, factor)), to + i); });
}

// sum -= factor x
void subtract(float* sum, const float* x, std::int64_t n, float factor) {
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    store(d, hn::NegMulAdd(hn::Set(d, factor), load(d, x + i), load(d, sum + i)), sum + i);
  });
}

void solve(const float* lower, std::int64_t n, std::int64_t cols, float* x) {
  for (std::int64_t i = 1; i < n; ++i)
    for (std::int64_t j = 0; j < i; ++j)
      subtract(x + i * cols, x + j * cols, cols, lower[i * n + j]);
}

void solve_back(const float* lower, std::int64_t n, std::int64_t cols, float* x) {
  for (std::int64_t i = n; i-- > 1;)
    for (std::int64_t j = 0; j < i; ++j)
      subtract(x + j * cols, x + i * cols, cols, lower[i * n + j]);
}

float dot_product(const float* a, const float* b, std::int64_t n) {
  return sum_of(
      n, [=](auto d, std::int64_t i) HWY_ATTR { return hn::Mul(load(d, a + i), load(d, b + i)); });
}

template <class From, class To>
void convert(const From* from, std::int64_t n, float factor, To* to) {
  for_lanes(n, [=](auto d, std::int64_t i)
                   HWY_ATTR { store(d, hn::Mul(load(d, from + i), hn::Set(d, factor)), to + i); });
}
void load_bf16(const BFloat16* from, std::int64_t n, float factor, float* to) {
  convert(from, n, factor, to);
}
void store_bf16(const float* from, std::int64_t n, float factor, BFloat16* to) {
  convert(from, n, factor, to);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(decay);
HWY_EXPORT(scaled);
HWY_EXPORT(subtract);
HWY_EXPORT(solve);
HWY_EXPORT(solve_back);
HWY_EXPORT(dot_product);
HWY_EXPORT(load_bf16);
HWY_EXPORT(store_bf16);

void decay_pairs(float* pairs, std::int64_t n, const float* sums, bool strict) {
  HWY_DYNAMIC_DISPATCH(decay)(pairs, n, sums, strict);
}

void scale_rows(float* x, std::int64_t n, std::int64_t cols, const float* factors) {
  scaled_rows(x, n, cols, factors, x);
}

void scaled_rows(const float* x, std::int64_t n, std::int64_t cols, const float* factors,
                 float* to) {
  const auto scale = HWY_DYNAMIC_DISPATCH(scaled);
  for (std::int64_t i = 0; i < n; ++i) scale(x + i * cols, cols, factors[i], to + i * cols);
}

void scale_block(float* x, std::int64_t numel, float factor) {
  HWY_DYNAMIC_DISPATCH(scaled)(x, numel, factor, x);
}

void subtract_block(float* sum, const float* x, std::int64_t numel, float factor) {
  HWY_DYNAMIC_DISPATCH(subtract)(sum, x, numel, factor);
}

void solve_lower(const float* lower, std::int64_t n, std::int64_t cols, float* x) {
  HWY_DYNAMIC_DISPATCH(solve)(lower, n, cols, x);
}

void solve_transposed(const float* lower, std::int64_t n, std::int64_t cols, float* x) {
  HWY_DYNAMIC_DISPATCH(solve_back)(lower, n, cols, x);
}

float dot(const float* a, const float* b, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(dot_product)(a, b, n);
}

void load_row(const float* from, std::int64_t n, float factor, float* to) {
  HWY_DYNAMIC_DISPATCH(scaled)(from, n, factor, to);
}
void load_row(const BFloat16* from, std::int64_t n, float factor, float* to) {
  HWY_DYNAMIC_DISPATCH(load_bf16)(from, n, factor, to);
}
void store_row(const float* from, std::int64_t n, float factor, float* to) {
  HWY_DYNAMIC_DISPATCH(scaled)(from, n, factor, to);
}
void store_row(const float* from, std::int64_t n, float factor, BFloat16* to) {
  HWY_DYNAMIC_DISPATCH(store_bf16)(from, n, factor, to);
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
