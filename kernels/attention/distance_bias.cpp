#include "kernels/attention/distance_bias.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/check.hpp"
#include "kernels/cpu/attention/distance_bias.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/attention.hpp"

namespace switchyard::kernels {

std::vector<std::int32_t> distance_buckets(std::int64_t num_buckets, std::int64_t max_distance) {
  const std::int64_t num_exact = num_buckets / 2;
  expect(num_exact > 0 && max_distance > num_exact,
         "two buckets, and a distance beyond half of them");
  std::vector<std::int32_t> buckets;
  for (std::int64_t d = 0; d <= max_distance; ++d) {
    if (d < num_exact) {
      buckets.push_back(static_cast<std::int32_t>(d));
      continue;
    }
    // In fp32, in T5's order: on the border between two buckets rounding decides.
    const auto exact = static_cast<float>(num_exact);
    const float octaves = std::log(static_cast<float>(d) / exact);
    const auto all = static_cast<float>(
        std::log(static_cast<double>(max_distance) / static_cast<double>(num_exact)));
    const auto wide =
        static_cast<std::int64_t>(octaves / all * static_cast<float>(num_buckets - num_exact));
    buckets.push_back(static_cast<std::int32_t>(std::min(num_exact + wide, num_buckets - 1)));
  }
  return buckets;
}

void spread_buckets(const TensorView& table, std::span<const std::int32_t> buckets,
                    const TensorView& values) {
  if (values.empty()) return;
  expect_matrix(values, DType::f32, table.rows(), std::ssize(buckets), "values: f32 [heads, N]");
  expect_matrix(table, DType::f32, table.rows(), table.cols(), "table: f32 [heads, buckets]");
  expect(std::ranges::all_of(buckets, [&](std::int32_t u) { return u >= 0 && u < table.cols(); }),
         "buckets of the table");
  dispatch(
      *values.device, [&] { cpu::spread_buckets(table, buckets, values); },
      [&] { plan::make_distance_bias(values); });
}

void span_bias(const TensorView& fractions, std::int64_t max_span, std::int64_t ramp,
               const TensorView& values) {
  if (values.empty()) return;
  expect(max_span > 0 && ramp > 0, "a span and a ramp of at least one token");
  expect_vector(fractions, DType::f32, values.rows(), "fractions: f32 [heads]");
  expect_matrix(values, DType::f32, values.rows(), 2 * max_span, "values: f32 [heads, 2 max_span]");
  dispatch(
      *values.device, [&] { cpu::span_bias(fractions, max_span, ramp, values); },
      [&] { plan::make_distance_bias(values); });
}

void add_span_penalty(double slope, const TensorView& gradient) {
  if (gradient.empty()) return;
  expect_vector(gradient, DType::f32, gradient.numel(), "gradient: f32 [heads]");
  dispatch(
      *gradient.device, [&] { cpu::add_span_penalty(slope, gradient); },
      [&] { plan::make_distance_bias(gradient); });
}

}  // namespace switchyard::kernels
