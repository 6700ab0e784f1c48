#include "launch/sweep/power.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "launch/study/table.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

constexpr double assumed_noise = 0.002;            // of small models on small texts
constexpr double quantiles = 1.959964 + 0.841621;  // of 97.5 % and of 80 %

// Pooled over the configurations of an earlier study.
double noise_in(const std::string& path) {
  const hdf5::File file = hdf5::File::open(path);
  const Table repeats = read_table(file, "repeats");
  const std::vector<double> counts = repeats.numbers("num_repeats");
  const std::vector<double> deviations = repeats.numbers("std_loss");
  double squares = 0, freedom = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (!(counts[i] >= 2) || std::isnan(deviations[i])) continue;
    squares += (counts[i] - 1) * deviations[i] * deviations[i];
    freedom += counts[i] - 1;
  }
  if (freedom == 0)
    throw DataError(
        fmt::format("study.noise: no configuration of {} has two finished repeats; give "
                    "a number instead",
                    path));
  return std::sqrt(squares / freedom);
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  if (n == 0) return {unknown, unknown, unknown, unknown};
  double mean = 0, squares = 0;
  for (const double value : values) mean += value / static_cast<double>(n);
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {.median = (values[(n - 1) / 2] + values[n / 2]) / 2,
          .least = values.front(),
          .largest = values.back(),
          .standard_deviation = n < 2 ? unknown : std::sqrt(squares / static_cast<double>(n - 1))};
}

Noise noise_for(const StudyConfig& study) {
  if (study.noise) return {*study.noise, "given"};
  if (!study.noise_file.empty()) return {noise_in(study.noise_file), study.noise_file};
  return {assumed_noise, "assumed"};
}

double least_visible_effect(double noise, std::int64_t num_repeats) {
  return quantiles * noise * std::sqrt(2 / static_cast<double>(num_repeats));
}

std::int64_t repeats_needed(double noise, double effect) {
  const double ratio = quantiles * noise / effect;
  return std::max<std::int64_t>(1, std::llround(std::ceil(2 * ratio * ratio)));
}

std::string power_text(const StudyConfig& study) {
  if (!study.effect) return {};
  const Noise noise = noise_for(study);
  const auto num_repeats = std::max<std::int64_t>(1, static_cast<std::int64_t>(study.seeds.size()));
  const double least = least_visible_effect(noise.value, num_repeats);
  const std::string words = fmt::format(
      "noise {:.2g} ({}), {} {} of each: differences from {:.2g} on are seen in 4 of 5 studies",
      noise.value, noise.source, num_repeats, num_repeats == 1 ? "repeat" : "repeats", least);
  if (least <= *study.effect)
    return fmt::format("Power: {}; {:.2g} is asked for", words, *study.effect);
  if (*study.effect <= 0)
    return fmt::format("Power: {}; no number of repeats shows a difference of 0", words);
  return fmt::format(
      "Power: warning: {}, and {:.2g} is asked for: it lies below the noise; {} repeats "
      "would show it (study.seeds)",
      words, *study.effect, repeats_needed(noise.value, *study.effect));
}

}  // namespace switchyard
