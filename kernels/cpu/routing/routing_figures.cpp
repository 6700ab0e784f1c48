#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/routing/routing_figures.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <hwy/contrib/math/math-inl.h>

#include <atomic>
#include <cmath>
#include <span>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/routing/routing_figures.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// p ln p is 0 at 0, and so it is at the least normal number, to rounding.
inline float entropy_of(const float* shares, std::int64_t num_experts) {
  constexpr float least = 1e-37f;
  return -sum_of(num_experts, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto p = load(d, shares + i);
    return hn::Mul(p, hn::Log(d, hn::Max(p, hn::Set(d, least))));
  });
}

std::int64_t entropies(const TensorView& shares, std::int64_t begin, std::int64_t end) {
  const Rows<float> rows = rows_of<float>(shares);
  std::int64_t sum = 0;
  for (std::int64_t t = begin; t < end; ++t) {
    const float entropy = entropy_of(rows[t], shares.cols());
    if (std::isfinite(entropy)) sum += std::llround(static_cast<double>(entropy) / entropy_unit);
  }
  return sum;
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(entropies);

void add_entropy(const TensorView& shares, const TensorView& into) {
  std::atomic_ref<std::int64_t> sum(*into.as<std::int64_t>());
  parallel_rows(shares.rows(), shares.cols(), [&](std::int64_t begin, std::int64_t end) {
    sum += HWY_DYNAMIC_DISPATCH(entropies)(shares, begin, end);
  });
}

void add_marked(const TensorView& counts, const TensorView& marks, const TensorView& into) {
  const std::span<const std::int32_t> count = counts.span<std::int32_t>();
  const std::span<const std::int32_t> mark = marks.span<std::int32_t>();
  for (std::size_t i = 0; i < count.size(); ++i)
    if (mark[i] != 0) *into.as<std::int64_t>() += count[i];
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
