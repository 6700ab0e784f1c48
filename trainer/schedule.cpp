#include "trainer/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace switchyard {
namespace {

// How far a decay from step `begin` to step `end` has come, in [0, 1].
double fraction_of(std::int64_t begin, std::int64_t end, std::int64_t step) {
  if (step <= begin) return 0;
  if (step >= end) return 1;
  return static_cast<double>(step - begin) / static_cast<double>(end - begin);
}

}  // namespace

double learning_rate_at(const OptimizerConfig& config, std::int64_t num_steps, std::int64_t step) {
  const double peak = config.learning_rate;
  const double low = config.min_learning_rate;
  const std::int64_t warmup = config.warmup_steps;
  if (step < warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  std::int64_t begin = std::max<std::int64_t>(warmup, 1);  // the last step that has the peak
  if (config.schedule == Schedule::constant_decay)
    begin = std::max(begin, num_steps - config.decay_steps);
  const double done = fraction_of(begin, num_steps + 1, step);
  if (config.schedule == Schedule::cosine)
    return low + (peak - low) * 0.5 * (1 + std::cos(std::numbers::pi * done));
  return std::lerp(peak, low, done);
}

}  // namespace switchyard
