#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/recurrence/recurrence_rows.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <algorithm>

#include "kernels/cpu/products/block_product.hpp"
#include "kernels/cpu/recurrence/recurrence_rows.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

void zero_span(float* x, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t j) HWY_ATTR { store(d, hn::Zero(d), x + j); });
}

// Pairs of a block of `lanes` columns with the rows behind it: e^{s_i - s_j} is e^{s_i - s_b}
// e^{s_b - s_j} with the block's last column b, which takes one exponential for `lanes` pairs. Both
// exponents are at most 0, as the sums descend.
void decay_behind(float* pairs, std::int64_t n, const float* sums, std::int64_t column) {
  const Lanes d;
  const std::int64_t lanes = lanes_of(d);
  const auto last = hn::Set(d, sums[column + lanes - 1]);
  const auto of_columns = exp_of(d, hn::Sub(last, load(d, sums + column)));
  HWY_ALIGN float of_rows[HWY_MAX_BYTES / sizeof(float)];
  std::int64_t i = column + lanes;
  for (; i + lanes <= n; i += lanes) {
    store(d, exp_of(d, hn::Sub(load(d, sums + i), last)), of_rows);
    for (std::int64_t k = 0; k < lanes; ++k) {
      float* const to = pairs + (i + k) * n + column;
      store(d, hn::Mul(load(d, to), hn::Mul(hn::Set(d, of_rows[k]), of_columns)), to);
    }
  }
  for (; i < n; ++i) {
    float* const to = pairs + i * n + column;
    const auto of_row = exp_of(d, hn::Sub(hn::Set(d, sums[i]), last));
    store(d, hn::Mul(load(d, to), hn::Mul(of_row, of_columns)), to);
  }
}

void decay(float* pairs, std::int64_t n, const float* sums, bool strict) {
  const std::int64_t lanes = lanes_of(Lanes());
  for (std::int64_t i = 0; i < n; ++i) {
    float* const row = pairs + i * n;
    const std::int64_t end = strict ? i : i + 1, begin = i / lanes * lanes;
    if (sums != nullptr && end > begin) {
      const float own = sums[i];
      const float* const from = sums + begin;
      float* const to = row + begin;
      for_lanes(end - begin, [=](auto d, std::int64_t j) HWY_ATTR {
        const auto factor = exp_of(d, hn::Sub(hn::Set(d, own), load(d, from + j)));
        store(d, hn::Mul(load(d, to + j), factor), to + j);
      });
    }
    zero_span(row + end, n - end);
  }
  if (sums == nullptr) return;
  for (std::int64_t column = 0; column + lanes <= n; column += lanes)
    decay_behind(pairs, n, sums, column);
}

void exponentials(const float* sums, std::int64_t n, float* grow, float* fade) {
  const float last = sums[n - 1];
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto sum = load(d, sums + i);
    store(d, exp_of(d, sum), grow + i);
    store(d, exp_of(d, hn::Sub(hn::Set(d, last), sum)), fade + i);
  });
}

void scaled(const float* x, std::int64_t n, float factor, float* to) {
  for_lanes(n, [=](auto d, std::int64_t i)
                   HWY_ATTR { store(d, hn::Mul(load(d, x + i), hn::Set(d, factor)), to + i); });
}

void scaled_block(const float* x, std::int64_t n, std::int64_t cols, const float* factors,
                  float* to) {
  for (std::int64_t i = 0; i < n; ++i) scaled(x + i * cols, cols, factors[i], to + i * cols);
}

// sum -= factor x
void subtract(float* sum, const float* x, std::int64_t n, float factor) {
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    store(d, hn::NegMulAdd(hn::Set(d, factor), load(d, x + i), load(d, sum + i)), sum + i);
  });
}

void subtract_from_block(const float* x, std::int64_t n, float* to) {
  for_lanes(n, [=](auto d, std::int64_t i)
                   HWY_ATTR { store(d, hn::Sub(load(d, x + i), load(d, to + i)), to + i); });
}

// Of a triangle's own rows, without those before and behind.
void solve(const float* lower, std::int64_t n, std::int64_t ld, std::int64_t cols, float* x) {
  for (std::int64_t i = 1; i < n; ++i)
    for (std::int64_t j = 0; j < i; ++j)
      subtract(x + i * cols, x + j * cols, cols, lower[i * ld + j]);
}

void solve_back(const float* lower, std::int64_t n, std::int64_t ld, std::int64_t cols, float* x) {
  for (std::int64_t i = n; i-- > 1;)
    for (std::int64_t j = 0; j < i; ++j)
      subtract(x + j * cols, x + i * cols, cols, lower[i * ld + j]);
}

float dot_product(const float* a, const float* b, std::int64_t n) {
  return sum_of(
      n, [=](auto d, std::int64_t i) HWY_ATTR { return hn::Mul(load(d, a + i), load(d, b + i)); });
}

void dots(const float* a, const float* b, std::int64_t n, std::int64_t cols, float* to) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = dot_product(a + i * cols, b + i * cols, cols);
}

void sums_of_rows_and_columns(const float* a, const float* b, std::int64_t n, float* columns,
                              float* to) {
  zero_span(columns, n);
  for (std::int64_t i = n; i-- > 0;) {
    const float* const row_a = a + i * n;
    const float* const row_b = b + i * n;
    for_lanes(i, [=](auto d, std::int64_t j) HWY_ATTR {
      const auto product = hn::Mul(load(d, row_a + j), load(d, row_b + j));
      store(d, hn::Add(load(d, columns + j), product), columns + j);
    });
    to[i] = sum_of(i, [=](auto d, std::int64_t j) HWY_ATTR { return load(d, columns + j); });
  }
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

template <class From, class To>
void convert_rows(const RowsBetween<From, To>& rows) {
  for (std::int64_t i = 0; i < rows.count; ++i)
    convert(rows.from + i * rows.from_step, rows.cols, rows.factor, rows.to + i * rows.to_step);
}
void convert_f32(const RowsBetween<float, float>& rows) {
  convert_rows(rows);
}
void convert_from_bf16(const RowsBetween<BFloat16, float>& rows) {
  convert_rows(rows);
}
void convert_to_bf16(const RowsBetween<float, BFloat16>& rows) {
  convert_rows(rows);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(decay);
HWY_EXPORT(exponentials);
HWY_EXPORT(scaled);
HWY_EXPORT(scaled_block);
HWY_EXPORT(subtract_from_block);
HWY_EXPORT(dots);
HWY_EXPORT(sums_of_rows_and_columns);
HWY_EXPORT(subtract);
HWY_EXPORT(solve);
HWY_EXPORT(solve_back);
HWY_EXPORT(dot_product);
HWY_EXPORT(load_bf16);
HWY_EXPORT(store_bf16);
HWY_EXPORT(convert_f32);
HWY_EXPORT(convert_from_bf16);
HWY_EXPORT(convert_to_bf16);

void decay_pairs(float* pairs, std::int64_t n, const float* sums, bool strict) {
  HWY_DYNAMIC_DISPATCH(decay)(pairs, n, sums, strict);
}

void gate_factors(const float* sums, std::int64_t n, float* grow, float* fade) {
  HWY_DYNAMIC_DISPATCH(exponentials)(sums, n, grow, fade);
}

void scale_rows(float* x, std::int64_t n, std::int64_t cols, const float* factors) {
  scaled_rows(x, n, cols, factors, x);
}

void scaled_rows(const float* x, std::int64_t n, std::int64_t cols, const float* factors,
                 float* to) {
  HWY_DYNAMIC_DISPATCH(scaled_block)(x, n, cols, factors, to);
}

void scale_block(float* x, std::int64_t numel, float factor) {
  HWY_DYNAMIC_DISPATCH(scaled)(x, numel, factor, x);
}

void subtract_block(float* sum, const float* x, std::int64_t numel, float factor) {
  HWY_DYNAMIC_DISPATCH(subtract)(sum, x, numel, factor);
}

void subtract_from(const float* x, std::int64_t numel, float* to) {
  HWY_DYNAMIC_DISPATCH(subtract_from_block)(x, numel, to);
}

namespace {

constexpr std::int64_t solved_rows = 8;  // at a time; what they need of others are products

}  // namespace

void solve_lower(const float* lower, std::int64_t n, std::int64_t cols, float* x) {
  for (std::int64_t row = 0; row < n; row += solved_rows) {
    const std::int64_t count = std::min(solved_rows, n - row);
    const float* const own = lower + row * n;
    if (row > 0)
      multiply_blocks({.m = count,
                       .n = cols,
                       .k = row,
                       .lda = n,
                       .ldb = cols,
                       .ldc = cols,
                       .into = Into::subtract},
                      own, x, x + row * cols);
    HWY_DYNAMIC_DISPATCH(solve)(own + row, count, n, cols, x + row * cols);
  }
}

void solve_transposed(const float* lower, std::int64_t n, std::int64_t cols, float* x) {
  for (std::int64_t row = (n - 1) / solved_rows * solved_rows; row >= 0; row -= solved_rows) {
    const std::int64_t count = std::min(solved_rows, n - row), end = row + count;
    if (end < n)
      multiply_blocks({.m = count,
                       .n = cols,
                       .k = n - end,
                       .lda = n,
                       .ldb = cols,
                       .ldc = cols,
                       .a_transposed = true,
                       .into = Into::subtract},
                      lower + end * n + row, x + end * cols, x + row * cols);
    HWY_DYNAMIC_DISPATCH(solve_back)(lower + row * n + row, count, n, cols, x + row * cols);
  }
}

float dot(const float* a, const float* b, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(dot_product)(a, b, n);
}

void row_dots(const float* a, const float* b, std::int64_t n, std::int64_t cols, float* to) {
  HWY_DYNAMIC_DISPATCH(dots)(a, b, n, cols, to);
}

void sums_across(const float* a, const float* b, std::int64_t n, float* columns, float* to) {
  HWY_DYNAMIC_DISPATCH(sums_of_rows_and_columns)(a, b, n, columns, to);
}

void convert_block(const RowsBetween<float, float>& rows) {
  HWY_DYNAMIC_DISPATCH(convert_f32)(rows);
}
void convert_block(const RowsBetween<BFloat16, float>& rows) {
  HWY_DYNAMIC_DISPATCH(convert_from_bf16)(rows);
}
void convert_block(const RowsBetween<float, BFloat16>& rows) {
  HWY_DYNAMIC_DISPATCH(convert_to_bf16)(rows);
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
