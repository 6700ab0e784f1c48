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
  return hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(value)), quiet, rounded);
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
using FourLanes = hn::CappedTag<float, 4>;
using OneLane = hn::CappedTag<float, 1>;

template <class D>
HWY_INLINE std::int64_t lanes_of(D d) {
  return static_cast<std::int64_t>(hn::Lanes(d));
}

// body(tag, i) for whole vectors, then for four and for single elements. The body is inlined, and
// is taken by value: what it captures cannot alias what it stores, and stays in registers.
template <class Body>
HWY_FLATTEN void for_lanes(std::int64_t n, const Body body) {
  const Lanes d;
  const FourLanes d4;
  std::int64_t i = 0;
  for (; i + lanes_of(d) <= n; i += lanes_of(d)) body(d, i);
  for (; i + lanes_of(d4) <= n; i += lanes_of(d4)) body(d4, i);
  for (; i < n; ++i) body(OneLane(), i);
}

// Sum over i of the lanes that term(tag, i) gives; four running sums hide the latency of additions.
template <class Term>
HWY_FLATTEN float sum_of(std::int64_t n, const Term term) {
  const Lanes d;
  const FourLanes d4;
  const std::int64_t lanes = lanes_of(d);
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
  auto rest = hn::Zero(d4);
  for (; i + lanes_of(d4) <= n; i += lanes_of(d4)) rest = hn::Add(rest, term(d4, i));
  total += hn::GetLane(hn::SumOfLanes(d4, rest));
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

// exp(x) for x up to 88: x = n ln 2 + r with |r| <= ln 2 / 2; 1 + r + r^2 P(r) for exp(r), P being
// the quartic that interpolates at Chebyshev's nodes (relative error 1e-8); then the exponent. With
// rounding the relative error is below 2e-7. 0 where the result would be no normal number; a NaN
// stays a NaN.
template <class D>
HWY_INLINE hn::Vec<D> exp_of(D d, hn::Vec<D> x) {
  const hn::Rebind<std::int32_t, D> di;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits; 127 is the exponent's
  // bias.
  const auto magic = hn::Set(d, 12582912.0f + 127.0f);
  const auto shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), magic);
  const auto n = hn::Sub(shifted, magic);
  auto r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  auto p = hn::Set(d, 1.39263261e-3f);
  p = hn::MulAdd(p, r, hn::Set(d, 8.36329255e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.16665524e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.166665763f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.5f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const auto power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, shifted)));
  // Not Max(x, -87), which drops a NaN on some targets.
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.33f)), hn::Mul(p, power));
}

}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
