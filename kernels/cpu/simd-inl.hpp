// The vector vocabulary of our loops, compiled once for every Highway target: loads and stores that
// convert bf16, loops with a tail, sums in a fixed order, the exponential. Included after
// hwy/foreach_target.h.
#if defined(SWITCHYARD_KERNELS_CPU_SIMD_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_KERNELS_CPU_SIMD_INL_HPP_
#undef SWITCHYARD_KERNELS_CPU_SIMD_INL_HPP_
#else
#define SWITCHYARD_KERNELS_CPU_SIMD_INL_HPP_
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "tensor/dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const float* from) {
  return hn::LoadU(d, from);
}

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const BFloat16* from) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::Rebind<std::uint32_t, D> d32;
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, &from->bits));
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}

template <class D>
HWY_INLINE void store(D d, hn::Vec<D> value, float* to) {
  hn::StoreU(value, d, to);
}

// The rounding of to_bf16(): to nearest, ties to even; a NaN stays a NaN.
template <class D>
HWY_INLINE hn::Vec<hn::Rebind<std::uint32_t, D>> bf16_bits(D, hn::Vec<D> value) {
  const hn::Rebind<std::uint32_t, D> d32;
  const auto bits = hn::BitCast(d32, value);
  const auto upper = hn::ShiftRight<16>(bits);
  const auto odd = hn::And(upper, hn::Set(d32, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7fffu))));
  const auto quiet = hn::Or(upper, hn::Set(d32, 0x40u));
  return hn::IfThenElse(hn::RebindMask(d32, hn::Ne(value, value)), quiet, rounded);
}

template <class D>
HWY_INLINE void store(D d, hn::Vec<D> value, BFloat16* to) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::Rebind<std::int32_t, D> di32;
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di32, bf16_bits(d, value))), d16, &to->bits);
}

// What a value becomes by being stored as T and loaded again.
template <class D>
HWY_INLINE hn::Vec<D> rounded_to(D, hn::Vec<D> value, const float*) {
  return value;
}
template <class D>
HWY_INLINE hn::Vec<D> rounded_to(D d, hn::Vec<D> value, const BFloat16*) {
  return hn::BitCast(d, hn::ShiftLeft<16>(bf16_bits(d, value)));
}

using Lanes = hn::ScalableTag<float>;
using OneLane = hn::CappedTag<float, 1>;

// body(tag, i) for whole vectors, then for single elements.
template <class Body>
HWY_INLINE void for_lanes(std::int64_t n, const Body& body) {
  const Lanes d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(d, i);
  for (; i < n; ++i) body(OneLane(), i);
}

// Sum over i of the lanes that term(tag, i) gives; four running sums hide the latency of additions.
template <class Term>
HWY_INLINE float sum_of(std::int64_t n, const Term& term) {
  const Lanes d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::Add(s0, term(d, i));
    s1 = hn::Add(s1, term(d, i + lanes));
    s2 = hn::Add(s2, term(d, i + 2 * lanes));
    s3 = hn::Add(s3, term(d, i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::Add(s0, term(d, i));
  float total = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < n; ++i) total += hn::GetLane(term(OneLane(), i));
  return total;
}

// The largest of n > 0 elements. A NaN may be the result or be passed over.
HWY_INLINE float max_of(const float* x, std::int64_t n, float at_least) {
  const Lanes d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto m0 = hn::Set(d, at_least), m1 = m0;
  std::int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    m0 = hn::Max(m0, hn::LoadU(d, x + i));
    m1 = hn::Max(m1, hn::LoadU(d, x + i + lanes));
  }
  float largest = hn::GetLane(hn::MaxOfLanes(d, hn::Max(m0, m1)));
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// exp(x): x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for exp(r) (coefficients of the Cephes
// library's expf, Moshier), then the exponent. Relative error below 2e-7 where the result is a
// normal number. Below ln(2^-126) it gives 0, above 88 the value at 88; a NaN stays a NaN.
template <class D>
HWY_INLINE hn::Vec<D> exp_of(D d, hn::Vec<D> x) {
  const hn::Rebind<std::int32_t, D> di;
  const auto lowest = hn::Set(d, -87.33f), highest = hn::Set(d, 88.0f);
  const auto vanishes = hn::Lt(x, lowest);
  // Selections rather than Min and Max, which drop a NaN on some targets.
  const auto within = hn::IfThenElse(hn::Gt(x, highest), highest, x);
  const auto a = hn::IfThenElse(vanishes, lowest, within);
  const auto n = hn::NearestInt(hn::Mul(a, hn::Set(d, 1.44269504f)));
  const auto nf = hn::ConvertTo(d, n);
  auto r = hn::NegMulAdd(nf, hn::Set(d, 0.693359375f), a);
  r = hn::NegMulAdd(nf, hn::Set(d, -2.12194440e-4f), r);
  auto p = hn::Set(d, 1.9875691500e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const auto power = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(n, hn::Set(di, 127))));
  return hn::IfThenZeroElse(vanishes, hn::Mul(p, power));
}

}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
