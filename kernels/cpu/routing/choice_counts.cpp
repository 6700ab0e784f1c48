#include "kernels/cpu/routing/choice_counts.hpp"

#include <algorithm>
#include <numeric>
#include <span>

namespace switchyard::kernels::cpu {

// A step has a few of these, on as many numbers as there are experts and sequences: one thread.
void sum_counts(const TensorView& counts, const TensorView& totals) {
  const std::span<std::int64_t> total = totals.span<std::int64_t>();
  std::ranges::fill(total, 0);
  for (std::int64_t s = 0; s < counts.rows(); ++s) {
    const std::int32_t* count = counts.row<std::int32_t>(s);
    for (std::size_t e = 0; e < total.size(); ++e) total[e] += count[e];
  }
}

void add_counts(const TensorView& counts, const TensorView& into) {
  const std::span<std::int64_t> sums = into.span<std::int64_t>();
  std::ranges::transform(sums, counts.span<std::int64_t>(), sums.begin(), std::plus<>());
}

void spread_counts(const TensorView& totals, const TensorView& counts) {
  const std::span<const std::int64_t> total = totals.span<std::int64_t>();
  for (std::int64_t s = 0; s < counts.rows(); ++s)
    std::ranges::transform(total, counts.row<std::int32_t>(s),
                           [](std::int64_t count) { return static_cast<std::int32_t>(count); });
}

void move_selection_bias(const TensorView& counts, const TensorView& decision, float rate,
                         const TensorView& bias) {
  if (decision.as<float>()[1] == 0) return;
  const std::span<const std::int64_t> count = counts.span<std::int64_t>();
  const std::span<float> value = bias.span<float>();
  const std::int64_t total = std::accumulate(count.begin(), count.end(), std::int64_t{0});
  for (std::size_t e = 0; e < count.size(); ++e) {
    const std::int64_t times_mean = count[e] * std::ssize(count);
    if (times_mean < total) value[e] += rate;
    if (times_mean > total) value[e] -= rate;
  }
}

}  // namespace switchyard::kernels::cpu
