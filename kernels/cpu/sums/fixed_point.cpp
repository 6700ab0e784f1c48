#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sums/fixed_point.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <type_traits>

#include "kernels/cpu/simd-inl.hpp"
#include "kernels/cpu/sums/fixed_point.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

using DoubleLanes = hn::ScalableTag<double>;

HWY_INLINE hn::Vec<DoubleLanes> load_double(const float* from) {
  return hn::PromoteTo(DoubleLanes(), hn::LoadU(hn::Rebind<float, DoubleLanes>(), from));
}
HWY_INLINE hn::Vec<DoubleLanes> load_double(const BFloat16* from) {
  return hn::PromoteTo(DoubleLanes(), load(hn::Rebind<float, DoubleLanes>(), from));
}

// The terms from i on that fill no vector.
template <class T>
bool add_rest(const T* terms, std::int64_t i, std::int64_t n, const FixedScale& rule,
              std::int64_t* sums) {
  bool all_fit = true;
  for (; i < n; ++i) {
    if constexpr (std::is_same_v<T, float>)
      all_fit &= add_fixed(static_cast<double>(terms[i]), rule, sums[i]);
    else
      all_fit &= add_fixed(static_cast<double>(to_float(terms[i])), rule, sums[i]);
  }
  return all_fit;
}

template <class T>
bool add_terms(const T* terms, std::int64_t n, const FixedScale& rule, std::int64_t* sums) {
  const DoubleLanes d;
  const hn::Rebind<std::int64_t, DoubleLanes> whole;
  const std::int64_t lanes = lanes_of(d);
  const auto scale = hn::Set(d, rule.scale), most = hn::Set(d, rule.most);
  auto fits = hn::Eq(scale, scale);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto term = hn::Mul(load_double(terms + i), scale);
    const auto fits_here = hn::Le(hn::Abs(term), most);  // false for a NaN
    fits = hn::And(fits, fits_here);
    const auto number = hn::ConvertTo(whole, hn::Round(hn::IfThenElseZero(fits_here, term)));
    hn::StoreU(hn::Add(hn::LoadU(whole, sums + i), number), whole, sums + i);
  }
  const bool all_fit = hn::AllTrue(d, fits);
  return add_rest(terms, i, n, rule, sums) && all_fit;
}

void to_floats(const std::int64_t* sums, std::int64_t n, double scale, float* values) {
  const DoubleLanes d;
  const hn::Rebind<std::int64_t, DoubleLanes> whole;
  const hn::Rebind<float, DoubleLanes> f;
  const std::int64_t lanes = lanes_of(d);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto number = hn::ConvertTo(d, hn::LoadU(whole, sums + i));
    hn::StoreU(hn::DemoteTo(f, hn::Mul(number, hn::Set(d, scale))), f, values + i);
  }
  for (; i < n; ++i) values[i] = static_cast<float>(static_cast<double>(sums[i]) * scale);
}

bool add_floats(const float* terms, std::int64_t n, const FixedScale& rule, std::int64_t* sums) {
  return add_terms(terms, n, rule, sums);
}
bool add_bf16(const BFloat16* terms, std::int64_t n, const FixedScale& rule, std::int64_t* sums) {
  return add_terms(terms, n, rule, sums);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <atomic>
#include <cmath>

namespace switchyard::kernels::cpu {

HWY_EXPORT(add_floats);
HWY_EXPORT(add_bf16);
HWY_EXPORT(to_floats);

FixedScale::FixedScale(const ExactSum& exact, std::int64_t num_terms)
    : scale(std::ldexp(1.0, exact.fraction_bits)),
      most(exact.most_of_unit * scale / static_cast<double>(num_terms)) {}

bool add_fixed(const float* terms, std::int64_t n, const FixedScale& rule, std::int64_t* sums) {
  return HWY_DYNAMIC_DISPATCH(add_floats)(terms, n, rule, sums);
}

bool add_fixed(const BFloat16* terms, std::int64_t n, const FixedScale& rule, std::int64_t* sums) {
  return HWY_DYNAMIC_DISPATCH(add_bf16)(terms, n, rule, sums);
}

bool add_fixed(double term, const FixedScale& rule, std::int64_t& sum) {
  const double scaled = term * rule.scale;
  if (!(std::abs(scaled) <= rule.most)) return false;
  // Unsigned: sums may wrap round.
  sum = static_cast<std::int64_t>(static_cast<std::uint64_t>(sum) +
                                  static_cast<std::uint64_t>(std::llrint(scaled)));
  return true;
}

void add_whole(const std::int64_t* terms, std::int64_t n, std::int64_t* sums) {
  for (std::int64_t i = 0; i < n; ++i)
    sums[i] = static_cast<std::int64_t>(static_cast<std::uint64_t>(sums[i]) +
                                        static_cast<std::uint64_t>(terms[i]));
}

void from_fixed(const std::int64_t* sums, std::int64_t n, int fraction_bits, float* values) {
  HWY_DYNAMIC_DISPATCH(to_floats)(sums, n, std::ldexp(1.0, -fraction_bits), values);
}

void tell_overflow(const ExactSum& exact) {
  std::atomic_ref(*exact.overflow.as<std::int32_t>()).store(1, std::memory_order_relaxed);
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
