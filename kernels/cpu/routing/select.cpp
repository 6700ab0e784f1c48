#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/routing/select.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/routing/select.hpp"
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

// What the experts of a token are as a choice sees them.
class Candidates {
 public:
  Candidates(const Selection& selection, std::int64_t num_experts)
      : selection_(selection),
        num_experts_(num_experts),
        bias_(selection.bias.empty() ? nullptr : selection.bias.as<float>()),
        values_(static_cast<std::size_t>(num_experts)),
        groups_(static_cast<std::size_t>(selection.num_groups)),
        best_groups_(static_cast<std::size_t>(selection.top_groups)) {}

  const float* of(const float* scores) {
    if (bias_ == nullptr && !selection_.limits_groups()) return scores;
    for (std::int64_t e = 0; e < num_experts_; ++e)
      values_[static_cast<std::size_t>(e)] = bias_ == nullptr ? scores[e] : scores[e] + bias_[e];
    if (selection_.limits_groups()) leave_out_groups();
    return values_.data();
  }

 private:
  std::int64_t group_size() const { return num_experts_ / selection_.num_groups; }

  float group_score(const float* values) const {
    const std::int64_t count =
        std::min<std::int64_t>(selection_.group_score == GroupScore::best ? 1 : 2, group_size());
    std::int32_t best[2];
    choose_row(values, group_size(), best, count);
    return count == 1 ? values[best[0]] : values[best[0]] + values[best[1]];
  }

  void leave_out_groups() {
    for (std::size_t g = 0; g < groups_.size(); ++g)
      groups_[g] = group_score(values_.data() + static_cast<std::int64_t>(g) * group_size());
    choose_row(groups_.data(), selection_.num_groups, best_groups_.data(), selection_.top_groups);
    for (std::int32_t g = 0; g < selection_.num_groups; ++g) {
      if (std::find(best_groups_.begin(), best_groups_.end(), g) != best_groups_.end()) continue;
      std::fill_n(values_.begin() + g * group_size(), group_size(),
                  -std::numeric_limits<float>::infinity());
    }
  }

  const Selection& selection_;
  std::int64_t num_experts_;
  const float* bias_;
  std::vector<float> values_, groups_;
  std::vector<std::int32_t> best_groups_;
};

void choose_rows(const TensorView& scores, const TensorView& indices, const Selection& selection,
                 std::int64_t begin, std::int64_t end) {
  const Rows<float> score = rows_of<float>(scores);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  Candidates candidates(selection, scores.cols());
  const std::int64_t top_k = selection.num_chosen > 0 ? selection.num_chosen : indices.cols();
  for (std::int64_t t = begin; t < end; ++t) {
    choose_row(candidates.of(score[t]), scores.cols(), index[t], top_k);
    std::fill(index[t] + top_k, index[t] + indices.cols(), -1);
  }
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(choose_rows);

void select_top_k(const TensorView& scores, const TensorView& indices, const Selection& selection) {
  parallel_rows(scores.rows(), scores.cols() * indices.cols(),
                [&](std::int64_t begin, std::int64_t end) {
                  HWY_DYNAMIC_DISPATCH(choose_rows)(scores, indices, selection, begin, end);
                });
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
