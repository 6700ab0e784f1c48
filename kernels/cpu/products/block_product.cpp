#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/products/block_product.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <algorithm>

#include "kernels/cpu/products/block_product.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// Where 32 registers hold 16 sums beside what they are made of; elsewhere there are 16 in all.
constexpr int tile_rows = HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_AVX2 ? 4 : 8;

// The sums of `rows` rows of the result and of one or two vectors of its columns: in registers,
// each with a name of its own.
template <class D, int rows, bool is_pair>
struct RowSums {
  using V = hn::Vec<D>;
  V first, second;
  RowSums<D, rows - 1, is_pair> below;

  HWY_INLINE void clear(D d) {
    first = hn::Zero(d);
    if constexpr (is_pair) second = hn::Zero(d);
    below.clear(d);
  }
  HWY_INLINE void load(D d, const float* c, std::int64_t step) {
    first = hn::LoadU(d, c);
    if constexpr (is_pair) second = hn::LoadU(d, c + hn::Lanes(d));
    below.load(d, c + step, step);
  }
  HWY_INLINE void store(D d, float* c, std::int64_t step) const {
    hn::StoreU(first, d, c);
    if constexpr (is_pair) hn::StoreU(second, d, c + hn::Lanes(d));
    below.store(d, c + step, step);
  }
  template <bool is_negative>
  HWY_INLINE void add(D d, const float* a, std::int64_t step, V b0, V b1) {
    const V factor = hn::Set(d, *a);
    first = is_negative ? hn::NegMulAdd(factor, b0, first) : hn::MulAdd(factor, b0, first);
    if constexpr (is_pair)
      second = is_negative ? hn::NegMulAdd(factor, b1, second) : hn::MulAdd(factor, b1, second);
    below.template add<is_negative>(d, a + step, step, b0, b1);
  }
};
template <class D, bool is_pair>
struct RowSums<D, 0, is_pair> {
  using V = hn::Vec<D>;
  HWY_INLINE void clear(D) {}
  HWY_INLINE void load(D, const float*, std::int64_t) {}
  HWY_INLINE void store(D, float*, std::int64_t) const {}
  template <bool is_negative>
  HWY_INLINE void add(D, const float*, std::int64_t, V, V) {}
};

// Some rows of the product: their part of a and of c, terms begin ... end - 1, columns 0 ... cols
// - 1.
struct Stripe {
  const float* a;
  std::int64_t row_step, term_step;  // of a
  const float* b;
  std::int64_t ldb;
  float* c;
  std::int64_t ldc;
  std::int64_t begin, end, cols;
};

template <class D, int rows, bool is_pair, bool is_negative>
HWY_INLINE void make_tile(D d, const Stripe& s, std::int64_t col, bool accumulates) {
  RowSums<D, rows, is_pair> sums;
  float* const c = s.c + col;
  if (accumulates)
    sums.load(d, c, s.ldc);
  else
    sums.clear(d);
  const float* a = s.a + s.begin * s.term_step;
  const float* b = s.b + s.begin * s.ldb + col;
  for (std::int64_t p = s.begin; p < s.end; ++p, a += s.term_step, b += s.ldb) {
    const auto b0 = hn::LoadU(d, b);
    if constexpr (is_pair)
      sums.template add<is_negative>(d, a, s.row_step, b0, hn::LoadU(d, b + hn::Lanes(d)));
    else
      sums.template add<is_negative>(d, a, s.row_step, b0, b0);
  }
  sums.store(d, c, s.ldc);
}

template <int rows, bool is_negative>
void make_stripe(const Stripe& s, bool accumulates) {
  const Lanes d;
  const FourLanes d4;
  std::int64_t col = 0;
  for (; col + 2 * lanes_of(d) <= s.cols; col += 2 * lanes_of(d))
    make_tile<Lanes, rows, true, is_negative>(d, s, col, accumulates);
  for (; col + lanes_of(d) <= s.cols; col += lanes_of(d))
    make_tile<Lanes, rows, false, is_negative>(d, s, col, accumulates);
  for (; col + lanes_of(d4) <= s.cols; col += lanes_of(d4))
    make_tile<FourLanes, rows, false, is_negative>(d4, s, col, accumulates);
  for (; col < s.cols; ++col)
    make_tile<OneLane, rows, false, is_negative>(OneLane(), s, col, accumulates);
}

template <int rows>
void make_rows(const BlockProduct& p, std::int64_t row, const float* a, const float* b, float* c) {
  const std::int64_t row_step = p.a_transposed ? 1 : p.lda;
  Stripe s{.a = a + row * row_step,
           .row_step = row_step,
           .term_step = p.a_transposed ? p.lda : 1,
           .b = b,
           .ldb = p.ldb,
           .c = c + row * p.ldc,
           .ldc = p.ldc,
           .begin = 0,
           .end = p.k,
           .cols = p.n};
  if (p.triangle == Triangle::lower_factor) s.end = std::min(p.k, row + rows);
  if (p.triangle == Triangle::upper_factor) s.begin = std::min(p.k, row);
  // Whole vectors, as all columns of a wider result would be.
  const std::int64_t lanes = lanes_of(Lanes());
  if (p.triangle == Triangle::lower_result)
    s.cols = std::min(p.n, (row + rows + lanes - 1) / lanes * lanes);
  if (p.into == Into::subtract)
    make_stripe<rows, true>(s, true);
  else
    make_stripe<rows, false>(s, p.into == Into::add);
}

void multiply(const BlockProduct& p, const float* a, const float* b, float* c) {
  std::int64_t row = 0;
  for (; row + tile_rows <= p.m; row += tile_rows) make_rows<tile_rows>(p, row, a, b, c);
  for (; row + 4 <= p.m; row += 4) make_rows<4>(p, row, a, b, c);
  for (; row < p.m; ++row) make_rows<1>(p, row, a, b, c);
}

// Four rows and four columns.
#if HWY_TARGET == HWY_SCALAR
HWY_INLINE void transpose_four(const float* from, std::int64_t cols, float* to, std::int64_t rows) {
  for (std::int64_t i = 0; i < 4; ++i)
    for (std::int64_t j = 0; j < 4; ++j) to[j * rows + i] = from[i * cols + j];
}
#else
HWY_INLINE void transpose_four(const float* from, std::int64_t cols, float* to, std::int64_t rows) {
  const hn::Full128<float> d;
  const hn::Repartition<std::uint64_t, decltype(d)> d64;
  const auto r0 = hn::LoadU(d, from), r1 = hn::LoadU(d, from + cols);
  const auto r2 = hn::LoadU(d, from + 2 * cols), r3 = hn::LoadU(d, from + 3 * cols);
  const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, low01, low23)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23)), d, to + rows);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, high01, high23)), d, to + 2 * rows);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23)), d, to + 3 * rows);
}
#endif

// By stripes of columns so narrow that the lines which are written stay in the first cache.
void transpose(const float* from, std::int64_t rows, std::int64_t cols, float* to) {
  constexpr std::int64_t stripe = 16;
  const std::int64_t whole_rows = rows / 4 * 4, whole_cols = cols / 4 * 4;
  for (std::int64_t begin = 0; begin < whole_cols; begin += stripe)
    for (std::int64_t i = 0; i < whole_rows; i += 4)
      for (std::int64_t j = begin; j < std::min(begin + stripe, whole_cols); j += 4)
        transpose_four(from + i * cols + j, cols, to + j * rows + i, rows);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = i < whole_rows ? whole_cols : 0; j < cols; ++j)
      to[j * rows + i] = from[i * cols + j];
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(multiply);
HWY_EXPORT(transpose);

void multiply_blocks(const BlockProduct& product, const float* a, const float* b, float* c) {
  HWY_DYNAMIC_DISPATCH(multiply)(product, a, b, c);
}

void transpose_block(const float* from, std::int64_t rows, std::int64_t cols, float* to) {
  HWY_DYNAMIC_DISPATCH(transpose)(from, rows, cols, to);
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
