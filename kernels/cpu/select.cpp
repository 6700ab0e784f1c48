#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/select.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <algorithm>
#include <limits>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/select.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

constexpr float lowest = std::numeric_limits<float>::lowest();

// The first place from `begin` on that holds `value`, or -1.
inline std::int64_t place_of(const float* scores, std::int64_t begin, std::int64_t end,
                             float value) {
  const Lanes d;
  const auto wanted = hn::Set(d, value);
  std::int64_t e = begin;
  for (; e + lanes_of(d) <= end; e += lanes_of(d)) {
    const auto place = hn::FindFirstTrue(d, hn::Eq(load(d, scores + e), wanted));
    if (place >= 0) return e + static_cast<std::int64_t>(place);
  }
  for (; e < end; ++e)
    if (scores[e] == value) return e;
  return -1;
}

// The largest score below `limit`.
inline float largest_below(const float* scores, std::int64_t num_experts, float limit) {
  const Lanes d;
  auto largest = hn::Set(d, lowest);
  std::int64_t e = 0;
  for (; e + lanes_of(d) <= num_experts; e += lanes_of(d)) {
    const auto score = load(d, scores + e);
    const auto below = hn::Lt(score, hn::Set(d, limit));
    largest = hn::Max(largest, hn::IfThenElse(below, score, hn::Set(d, lowest)));
  }
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  for (; e < num_experts; ++e)
    if (scores[e] < limit && scores[e] > result) result = scores[e];
  return result;
}

// The next in the order (score descending, expert ascending) after the one chosen last, or -1.
inline std::int64_t next_of(const float* scores, std::int64_t num_experts, std::int64_t last) {
  const std::int64_t equal = place_of(scores, last + 1, num_experts, scores[last]);
  if (equal >= 0) return equal;
  if (scores[last] == lowest) return -1;
  return place_of(scores, 0, num_experts, largest_below(scores, num_experts, scores[last]));
}

inline void choose_row(const float* scores, std::int64_t num_experts, std::int32_t* indices,
                       std::int64_t top_k) {
  std::int64_t last = place_of(scores, 0, num_experts, max_of(scores, num_experts, lowest));
  std::int64_t chosen = 0;
  for (; chosen < top_k && last >= 0; ++chosen) {
    indices[chosen] = static_cast<std::int32_t>(last);
    last = next_of(scores, num_experts, last);
  }
  // What is left has no order: the lowest experts that are not chosen yet.
  for (std::int32_t e = 0; chosen < top_k; ++e)
    if (std::find(indices, indices + chosen, e) == indices + chosen) indices[chosen++] = e;
}

void choose_rows(const TensorView& scores, const TensorView& indices, std::int64_t begin,
                 std::int64_t end) {
  const Rows<float> score = rows_of<float>(scores);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  for (std::int64_t t = begin; t < end; ++t)
    choose_row(score[t], scores.cols(), index[t], indices.cols());
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(choose_rows);

void select_top_k(const TensorView& scores, const TensorView& indices) {
  parallel_rows(scores.rows(), scores.cols() * indices.cols(),
                [&](std::int64_t begin, std::int64_t end) {
                  HWY_DYNAMIC_DISPATCH(choose_rows)(scores, indices, begin, end);
                });
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
