// HWY_TARGET_INCLUDE makes Highway compile this file once for every instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention/softmax.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <hwy/highway.h>

#include <algorithm>

#include "kernels/cpu/attention/softmax.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F32 = hn::ScalableTag<float>;
using Vec = hn::Vec<F32>;
using I32 = hn::RebindToSigned<F32>;
using U32 = hn::RebindToUnsigned<F32>;
using U16 = hn::Rebind<std::uint16_t, F32>;

std::int64_t num_lanes() {
  return static_cast<std::int64_t>(hn::Lanes(F32()));
}

// 2^t for t <= 0; everything below 2^-126 becomes about 2^-126. Minimax polynomial for the fraction
// in [-1/2, 1/2], exact at 0; adding 1.5 * 2^23 leaves the integer part in the low mantissa bits.
HWY_INLINE Vec exp2_of_nonpositive(Vec t) {
  const F32 d;
  const I32 di;
  const Vec magic = hn::Set(d, 12582912.0f);
  t = hn::Max(t, hn::Set(d, -126.0f));
  const Vec shifted = hn::Add(t, magic);
  const Vec f = hn::Sub(t, hn::Sub(shifted, magic));
  Vec p = hn::Set(d, 0.0013264738954603672f);
  p = hn::MulAdd(p, f, hn::Set(d, 0.009671516716480255f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.05550733581185341f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.24022242426872253f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.6931470036506653f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
}

// The upper halves, rounded to nearest even, in the low halves of the lanes. Not for NaN.
HWY_INLINE hn::Vec<U32> rounded_upper_half(Vec v) {
  const U32 du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  return hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7fffu)), odd));
}

template <StoreAs as>
HWY_INLINE void store(Vec v, std::byte* row, std::int64_t i) {
  if constexpr (as == StoreAs::f32) {
    hn::StoreU(v, F32(), reinterpret_cast<float*>(row) + i);
  } else if constexpr (as == StoreAs::bf16) {
    const auto upper = hn::BitCast(I32(), rounded_upper_half(v));
    hn::StoreU(hn::DemoteTo(U16(), upper), U16(), reinterpret_cast<std::uint16_t*>(row) + i);
  } else {
    const auto bits = hn::ShiftLeft<16>(rounded_upper_half(v));
    hn::StoreU(hn::BitCast(F32(), bits), F32(), reinterpret_cast<float*>(row) + i);
  }
}

template <StoreAs as>
constexpr std::int64_t stored_size() {
  return as == StoreAs::bf16 ? 2 : 4;
}

HWY_INLINE Vec load_bf16(const std::byte* row, std::int64_t i) {
  const auto half = hn::LoadU(U16(), reinterpret_cast<const std::uint16_t*>(row) + i);
  return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::PromoteTo(U32(), half)));
}

// The columns of a row by their kind, in whole vectors: [begin, end) holds all visible ones, those
// of [whole_begin, whole_end) are visible altogether. At most one vector on either side is visible
// in part.
struct Columns {
  std::int64_t from, to;  // visible
  std::int64_t begin, whole_begin, whole_end, end;
  std::int64_t all;
};
HWY_INLINE Columns columns_of(const ScoreBlock& block, std::int64_t row) {
  const std::int64_t step = num_lanes();
  const std::int64_t from = block.from[row], to = block.to[row];
  const std::int64_t begin = from / step * step, end = (to + step - 1) / step * step;
  const std::int64_t whole_begin = begin == from ? begin : begin + step;
  return {from, to, begin, whole_begin, std::max(whole_begin, to / step * step), end, block.cols};
}

// Which lanes of the vector at column i are visible.
HWY_INLINE auto visible_lanes(const Columns& columns, std::int64_t i) {
  const F32 d;
  const auto below =
      hn::FirstN(d, static_cast<std::size_t>(std::max<std::int64_t>(0, columns.to - i)));
  const auto before =
      hn::FirstN(d, static_cast<std::size_t>(std::max<std::int64_t>(0, columns.from - i)));
  return hn::AndNot(before, below);
}

// body(i) for the vectors visible in part, at most one before and one after the whole ones.
template <class Body>
HWY_INLINE void for_partial(const Columns& columns, Body body) {
  if (columns.begin < columns.whole_begin) body(columns.begin);
  if (columns.whole_end < columns.end) body(columns.whole_end);
}

template <StoreAs as>
HWY_INLINE void store_zeros(std::byte* row, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; i += num_lanes()) store<as>(hn::Zero(F32()), row, i);
}

HWY_INLINE float row_max(const float* scores, const Columns& columns) {
  const F32 d;
  const std::int64_t step = num_lanes();
  const Vec lowest = hn::Set(d, -3.0e38f);
  Vec max0 = lowest;
  Vec max1 = lowest;
  std::int64_t i = columns.whole_begin;
  for (; i + 2 * step <= columns.whole_end; i += 2 * step) {
    max0 = hn::Max(max0, hn::LoadU(d, scores + i));
    max1 = hn::Max(max1, hn::LoadU(d, scores + i + step));
  }
  for (; i < columns.whole_end; i += step) max0 = hn::Max(max0, hn::LoadU(d, scores + i));
  for_partial(columns, [&](std::int64_t at) HWY_ATTR {
    max1 = hn::Max(max1,
                   hn::IfThenElse(visible_lanes(columns, at), hn::LoadU(d, scores + at), lowest));
  });
  return hn::GetLane(hn::MaxOfLanes(d, hn::Max(max0, max1)));
}

// Writes the probabilities of a row and returns their sum.
template <StoreAs as>
HWY_INLINE float exponentials(const float* scores, const Columns& columns, float scale, float max,
                              std::byte* probs) {
  const F32 d;
  const std::int64_t step = num_lanes();
  const Vec factor = hn::Set(d, scale);
  const Vec shift = hn::Set(d, max);
  // Rounding may leave scale * score - max above 0 by an ulp of max: much, when max is huge.
  const auto probability = [&](std::int64_t i) HWY_ATTR {
    const Vec t = hn::MulSub(hn::LoadU(d, scores + i), factor, shift);
    return exp2_of_nonpositive(hn::Min(t, hn::Zero(d)));
  };
  Vec sum0 = hn::Zero(d);
  Vec sum1 = hn::Zero(d);
  store_zeros<as>(probs, 0, columns.begin);
  std::int64_t i = columns.whole_begin;
  for (; i + 2 * step <= columns.whole_end; i += 2 * step) {
    const Vec p0 = probability(i);
    const Vec p1 = probability(i + step);
    sum0 = hn::Add(sum0, p0);
    sum1 = hn::Add(sum1, p1);
    store<as>(p0, probs, i);
    store<as>(p1, probs, i + step);
  }
  for (; i < columns.whole_end; i += step) {
    const Vec p = probability(i);
    sum0 = hn::Add(sum0, p);
    store<as>(p, probs, i);
  }
  for_partial(columns, [&](std::int64_t at) HWY_ATTR {
    const Vec p = hn::IfThenElseZero(visible_lanes(columns, at), probability(at));
    sum1 = hn::Add(sum1, p);
    store<as>(p, probs, at);
  });
  store_zeros<as>(probs, columns.end, columns.all);
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
}

HWY_INLINE void scale_row(float* row, float factor, std::int64_t n) {
  const F32 d;
  std::int64_t i = 0;
  for (; i + num_lanes() <= n; i += num_lanes())
    hn::StoreU(hn::Mul(hn::LoadU(d, row + i), hn::Set(d, factor)), d, row + i);
  for (; i < n; ++i) row[i] *= factor;
}

// 2^(from - to) for a maximum that grew from `from` to `to`.
HWY_INLINE float correction(float from, float to) {
  return hn::GetLane(exp2_of_nonpositive(hn::Set(F32(), from - to)));
}

template <StoreAs as>
void softmax_rows(const ScoreBlock& block, const OnlineSoftmax& state, std::byte* probs) {
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const float* scores = block.scores + r * block.cols;
    std::byte* row = probs + r * block.cols * stored_size<as>();
    if (block.from[r] == block.to[r]) {
      store_zeros<as>(row, 0, block.cols);
      continue;
    }
    const Columns columns = columns_of(block, r);
    const float block_max = row_max(scores, columns) * block.scale;
    if (state.sum[r] == 0) {
      state.max[r] = block_max;
    } else if (block_max > state.max[r]) {
      const float factor = correction(state.max[r], block_max);
      state.max[r] = block_max;
      state.sum[r] *= factor;
      scale_row(state.out + r * state.head_dim, factor, state.head_dim);
    }
    state.sum[r] += exponentials<as>(scores, columns, block.scale, state.max[r], row);
  }
}

void softmax_block_on_target(const ScoreBlock& block, const OnlineSoftmax& state,
                             std::byte* probs) {
  switch (block.store) {
    case StoreAs::f32:
      return softmax_rows<StoreAs::f32>(block, state, probs);
    case StoreAs::bf16:
      return softmax_rows<StoreAs::bf16>(block, state, probs);
    case StoreAs::f32_rounded_to_bf16:
      return softmax_rows<StoreAs::f32_rounded_to_bf16>(block, state, probs);
  }
}

template <StoreAs as>
void backward_rows(const ScoreBlock& block, const float* dprobs, const float* lse,
                   const float* delta, std::byte* probs, std::byte* dscores) {
  const F32 d;
  const Vec factor = hn::Set(d, block.scale);
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const std::int64_t begin = r * block.cols;
    std::byte* p_row = probs + begin * stored_size<as>();
    std::byte* ds_row = dscores + begin * stored_size<as>();
    if (block.from[r] == block.to[r]) {
      store_zeros<as>(p_row, 0, block.cols);
      store_zeros<as>(ds_row, 0, block.cols);
      continue;
    }
    const Columns columns = columns_of(block, r);
    const Vec row_lse = hn::Set(d, lse[r]);
    const Vec row_delta = hn::Set(d, delta[r]);
    const auto probability = [&](std::int64_t i) HWY_ATTR {
      const Vec t = hn::MulSub(hn::LoadU(d, block.scores + begin + i), factor, row_lse);
      return exp2_of_nonpositive(hn::Min(t, hn::Zero(d)));
    };
    const auto store_both = [&](Vec p, std::int64_t i) HWY_ATTR {
      const Vec dp = hn::Sub(hn::LoadU(d, dprobs + begin + i), row_delta);
      store<as>(p, p_row, i);
      store<as>(hn::Mul(p, dp), ds_row, i);
    };
    store_zeros<as>(p_row, 0, columns.begin);
    store_zeros<as>(ds_row, 0, columns.begin);
    for (std::int64_t i = columns.whole_begin; i < columns.whole_end; i += num_lanes())
      store_both(probability(i), i);
    for_partial(columns, [&](std::int64_t at) HWY_ATTR {
      store_both(hn::IfThenElseZero(visible_lanes(columns, at), probability(at)), at);
    });
    store_zeros<as>(p_row, columns.end, columns.all);
    store_zeros<as>(ds_row, columns.end, columns.all);
  }
}

void softmax_block_backward_on_target(const ScoreBlock& block, const float* dprobs,
                                      const float* lse, const float* delta, std::byte* probs,
                                      std::byte* dscores) {
  switch (block.store) {
    case StoreAs::f32:
      return backward_rows<StoreAs::f32>(block, dprobs, lse, delta, probs, dscores);
    case StoreAs::bf16:
      return backward_rows<StoreAs::bf16>(block, dprobs, lse, delta, probs, dscores);
    case StoreAs::f32_rounded_to_bf16:
      return backward_rows<StoreAs::f32_rounded_to_bf16>(block, dprobs, lse, delta, probs, dscores);
  }
}

float dot_on_target(DType a_type, const std::byte* a, DType b_type, const std::byte* b,
                    std::int64_t n) {
  const F32 d;
  const auto load = [&](DType type, const std::byte* values, std::int64_t i) HWY_ATTR {
    return type == DType::bf16 ? load_bf16(values, i)
                               : hn::LoadU(d, reinterpret_cast<const float*>(values) + i);
  };
  const auto value = [&](DType type, const std::byte* values, std::int64_t i) {
    return type == DType::bf16 ? to_float(reinterpret_cast<const BFloat16*>(values)[i])
                               : reinterpret_cast<const float*>(values)[i];
  };
  Vec sum = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + num_lanes() <= n; i += num_lanes())
    sum = hn::MulAdd(load(a_type, a, i), load(b_type, b, i), sum);
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) total += value(a_type, a, i) * value(b_type, b, i);
  return total;
}

void scale_into_on_target(const float* source, float factor, DType dtype, std::byte* target,
                          std::int64_t n) {
  const F32 d;
  std::int64_t i = 0;
  for (; i + num_lanes() <= n; i += num_lanes()) {
    const Vec v = hn::Mul(hn::LoadU(d, source + i), hn::Set(d, factor));
    const Vec safe = hn::IfThenElse(hn::IsNaN(v), hn::NaN(d), v);  // rounding keeps this NaN
    if (dtype == DType::bf16)
      store<StoreAs::bf16>(safe, target, i);
    else
      store<StoreAs::f32>(safe, target, i);
  }
  for (; i < n; ++i) {
    if (dtype == DType::bf16)
      reinterpret_cast<BFloat16*>(target)[i] = to_bf16(source[i] * factor);
    else
      reinterpret_cast<float*>(target)[i] = source[i] * factor;
  }
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(softmax_block_on_target);
HWY_EXPORT(softmax_block_backward_on_target);
HWY_EXPORT(dot_on_target);
HWY_EXPORT(scale_into_on_target);

void softmax_block(const ScoreBlock& block, const OnlineSoftmax& state, std::byte* probs) {
  HWY_DYNAMIC_DISPATCH(softmax_block_on_target)(block, state, probs);
}

void softmax_block_backward(const ScoreBlock& block, const float* dprobs, const float* lse,
                            const float* delta, std::byte* probs, std::byte* dscores) {
  HWY_DYNAMIC_DISPATCH(softmax_block_backward_on_target)
  (block, dprobs, lse, delta, probs, dscores);
}

float dot(DType a_type, const std::byte* a, DType b_type, const std::byte* b, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(dot_on_target)(a_type, a, b_type, b, n);
}

void scale_into(const float* source, float factor, DType dtype, std::byte* target, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(scale_into_on_target)(source, factor, dtype, target, n);
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
