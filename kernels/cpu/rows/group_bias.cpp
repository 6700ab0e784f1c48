#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows/group_bias.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <algorithm>
#include <span>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/group_bias.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

template <class T>
void add_to_rows(const TensorView& bias, std::span<const std::int32_t> offsets, const TensorView& y,
                 std::int64_t begin, std::int64_t end) {
  const Rows<T> biases = rows_of<T>(bias), rows = rows_of<T>(y);
  auto group = std::ranges::upper_bound(offsets, begin) - offsets.begin() - 1;
  for (std::int64_t r = begin; r < std::min<std::int64_t>(end, offsets.back()); ++r) {
    while (r >= offsets[static_cast<std::size_t>(group) + 1]) ++group;
    const T* const from = biases[group];
    T* const to = rows[r];
    for_lanes(y.cols(), [=](auto d, std::int64_t i) HWY_ATTR {
      store(d, hn::Add(load(d, to + i), load(d, from + i)), to + i);
    });
  }
}

void add_rows(const TensorView& bias, std::span<const std::int32_t> offsets, const TensorView& y,
              std::int64_t begin, std::int64_t end) {
  const auto add = y.dtype == DType::f32 ? add_to_rows<float> : add_to_rows<BFloat16>;
  add(bias, offsets, y, begin, end);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(add_rows);

void add_group_bias(const TensorView& bias, const TensorView& offsets, const TensorView& y) {
  const std::span<const std::int32_t> begins = offsets.span<std::int32_t>();
  parallel_rows(y.rows(), y.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(add_rows)(bias, begins, y, begin, end);
  });
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
