#include "model/sampling.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tensor/error.hpp"
#include "tensor/random.hpp"

namespace switchyard {

namespace {

// exp((logit - largest) / temperature): probabilities up to their common sum.
std::vector<double> weights_of(std::span<const float> logits, float largest, double temperature) {
  std::vector<double> weights(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    weights[i] = std::exp((static_cast<double>(logits[i]) - largest) / temperature);
  return weights;
}

}  // namespace

std::int32_t sample(std::span<const float> logits, double temperature, double top_p,
                    double uniform) {
  expect(
      !logits.empty() && temperature >= 0 && top_p > 0 && top_p <= 1 && uniform >= 0 && uniform < 1,
      "logits, temperature >= 0, 0 < top_p <= 1, 0 <= uniform < 1");
  const bool all_numbers =
      std::ranges::none_of(logits, [](float logit) { return std::isnan(logit); });
  const auto best = std::ranges::max_element(logits);
  if (!all_numbers || !std::isfinite(*best))
    throw NumericalError("the model's logits are not finite; the weights are damaged");
  const auto best_id = static_cast<std::int32_t>(best - logits.begin());
  if (temperature == 0) return best_id;

  const std::vector<double> weights = weights_of(logits, *best, temperature);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) {
    return weights[static_cast<std::size_t>(a)] > weights[static_cast<std::size_t>(b)];
  });
  double nucleus = 0;
  std::size_t num_kept = 0;
  while (num_kept < order.size() && (num_kept == 0 || nucleus < top_p * total))
    nucleus += weights[static_cast<std::size_t>(order[num_kept++])];

  double left = uniform * nucleus;
  for (std::size_t i = 0; i < num_kept; ++i) {
    left -= weights[static_cast<std::size_t>(order[i])];
    if (left < 0) return order[i];
  }
  return order[num_kept - 1];  // rounding ate the last share
}

double sampling_uniform(std::uint64_t seed, std::uint64_t sequence, std::uint64_t position) {
  const auto words = random_words(random_key(seed, "sampling"), position, sequence);
  const std::uint64_t bits = (static_cast<std::uint64_t>(words[0]) << 32) | words[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace switchyard
