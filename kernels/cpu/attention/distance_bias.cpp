#include "kernels/cpu/attention/distance_bias.hpp"

#include <algorithm>
#include <cmath>

namespace switchyard::kernels::cpu {

void spread_buckets(const TensorView& table, std::span<const std::int32_t> buckets,
                    const TensorView& values) {
  for (std::int64_t h = 0; h < values.rows(); ++h)
    for (std::int64_t d = 0; d < values.cols(); ++d)
      values.row<float>(h)[d] = table.row<float>(h)[buckets[static_cast<std::size_t>(d)]];
}

void span_bias(const TensorView& fractions, std::int64_t max_span, std::int64_t ramp,
               const TensorView& values) {
  constexpr float hidden = -1e30f;  // infinity would make NaN of differences
  const auto width = static_cast<double>(ramp);
  for (std::int64_t h = 0; h < values.rows(); ++h) {
    float& fraction = fractions.as<float>()[h];
    fraction = std::clamp(fraction, 0.0f, 1.0f);
    const double span = static_cast<double>(fraction) * static_cast<double>(max_span);
    float* log_mask = values.row<float>(h);
    float* slopes = log_mask + max_span;
    for (std::int64_t d = 0; d < max_span; ++d) {
      const double left = width + span - static_cast<double>(d);  // of the ramp
      const bool is_on_ramp = left > 0 && left < width;
      log_mask[d] = left <= 0 ? hidden : static_cast<float>(std::log(std::min(left / width, 1.0)));
      slopes[d] = is_on_ramp ? static_cast<float>(static_cast<double>(max_span) / left) : 0.0f;
    }
  }
}

void add_span_penalty(double slope, const TensorView& gradient) {
  const auto of_head = static_cast<float>(slope / static_cast<double>(gradient.numel()));
  for (float& value : gradient.span<float>()) value += of_head;
}

}  // namespace switchyard::kernels::cpu
