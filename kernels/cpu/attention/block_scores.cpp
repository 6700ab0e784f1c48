#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention/block_scores.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <algorithm>
#include <limits>

#include "kernels/cpu/attention/block_scores.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

constexpr float lowest = -std::numeric_limits<float>::infinity();

// Writes the scores of four vectors of blocks at a time, and the lowest behind them.
void score(const float* query, const BlockMeans& means, std::int64_t first, std::int64_t count,
           float* scores) {
  const Lanes d;
  const std::int64_t step = lanes_of(d);
  for (std::int64_t i = 0; i < count; i += 4 * step) {
    auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
    const float* row = means.values.data() + first + i;
    for (std::int64_t dim = 0; dim < means.head_dim; ++dim, row += means.stride) {
      const auto factor = hn::Set(d, query[dim]);
      s0 = hn::MulAdd(factor, hn::LoadU(d, row), s0);
      s1 = hn::MulAdd(factor, hn::LoadU(d, row + step), s1);
      s2 = hn::MulAdd(factor, hn::LoadU(d, row + 2 * step), s2);
      s3 = hn::MulAdd(factor, hn::LoadU(d, row + 3 * step), s3);
    }
    hn::StoreU(s0, d, scores + i);
    hn::StoreU(s1, d, scores + i + step);
    hn::StoreU(s2, d, scores + i + 2 * step);
    hn::StoreU(s3, d, scores + i + 3 * step);
  }
  std::fill_n(scores + count, BlockMeans::padding, lowest);
}

// The first of the highest; -1 if all are the lowest or no numbers.
std::int64_t best_of(const float* scores, std::int64_t count) {
  const Lanes d;
  const std::int64_t step = lanes_of(d);
  auto most = hn::Set(d, lowest);
  for (std::int64_t i = 0; i < count; i += step) {
    const auto here = hn::LoadU(d, scores + i);
    most = hn::IfThenElse(hn::Gt(here, most), here, most);  // not of NaN
  }
  most = hn::MaxOfLanes(d, most);
  if (hn::GetLane(most) == lowest) return -1;
  for (std::int64_t i = 0; i < count; i += step) {
    const auto found = hn::FindFirstTrue(d, hn::Eq(hn::LoadU(d, scores + i), most));
    if (found >= 0) return i + static_cast<std::int64_t>(found);
  }
  return -1;
}

void choose(const float* query, const BlockMeans& means, std::int64_t first, std::int64_t count,
            std::int64_t num_choices, float* scores, std::int32_t* chosen) {
  std::fill_n(chosen, num_choices, -1);
  const std::int64_t wanted = std::min(count, num_choices);
  if (wanted < count) score(query, means, first, count, scores);
  for (std::int64_t j = 0; j < wanted; ++j) {
    std::int64_t best = wanted < count ? best_of(scores, count) : j;
    // What is no number: the earliest that is not chosen yet.
    for (std::int64_t i = 0; best < 0; ++i)
      if (std::find(chosen, chosen + j, static_cast<std::int32_t>(first + i)) == chosen + j)
        best = i;
    chosen[j] = static_cast<std::int32_t>(first + best);
    scores[best] = lowest;
  }
  std::sort(chosen, chosen + wanted);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(choose);
HWY_EXPORT(score);

void score_blocks(const float* query, const BlockMeans& means, std::int64_t first,
                  std::int64_t count, float* scores) {
  HWY_DYNAMIC_DISPATCH(score)(query, means, first, count, scores);
}

void choose_best(const float* query, const BlockMeans& means, std::int64_t first,
                 std::int64_t count, std::int64_t num_choices, float* scores,
                 std::int32_t* chosen) {
  HWY_DYNAMIC_DISPATCH(choose)(query, means, first, count, num_choices, scores, chosen);
}

}  // namespace switchyard::kernels::cpu

#endif
