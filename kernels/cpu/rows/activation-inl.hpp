// Activations of our loops, compiled once for every Highway target.
#if defined(SWITCHYARD_KERNELS_CPU_ACTIVATION_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_KERNELS_CPU_ACTIVATION_INL_HPP_
#undef SWITCHYARD_KERNELS_CPU_ACTIVATION_INL_HPP_
#else
#define SWITCHYARD_KERNELS_CPU_ACTIVATION_INL_HPP_
#endif

#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {

template <class D>
HWY_INLINE hn::Vec<D> sigmoid(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, 1.0f), lowest = hn::Set(d, -88.0f);
  const auto within = hn::IfThenElse(hn::Lt(x, lowest), lowest, x);  // keeps a NaN
  return hn::Div(one, hn::Add(one, exp_of(d, hn::Neg(within))));
}

// silu'(x) = s (1 + x (1 - s)) with s = sigmoid(x).
template <class D>
HWY_INLINE hn::Vec<D> silu_slope(D d, hn::Vec<D> x, hn::Vec<D> s) {
  const auto one = hn::Set(d, 1.0f);
  return hn::Mul(s, hn::MulAdd(x, hn::Sub(one, s), one));
}

}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
