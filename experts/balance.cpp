#include "experts/balance.hpp"

#include <fmt/core.h>

#include "tensor/error.hpp"

namespace switchyard {

void check_balance_scope(const ExpertsConfig& config) {
  if (config.balance_scope == "sequence") return;
  throw ConfigError(
      fmt::format("experts.balance_scope: '{}' is unknown; the only scope is 'sequence'",
                  config.balance_scope));
}

double balance_loss_sum(std::span<const std::int32_t> counts, std::span<const float> prob_sums,
                        const BalanceDims& dims) {
  const double num_slots = static_cast<double>(dims.sequence_length * dims.top_k);
  const double length = static_cast<double>(dims.sequence_length);
  double products = 0;
  for (std::size_t i = 0; i < counts.size(); ++i)
    products += (counts[i] / num_slots) * (static_cast<double>(prob_sums[i]) / length);
  return static_cast<double>(dims.num_experts) * products;
}

void balance_prob_slopes(std::span<const std::int32_t> counts, const BalanceDims& dims,
                         double scale, std::span<float> slopes) {
  const double length = static_cast<double>(dims.sequence_length);
  const double num_slots = static_cast<double>(dims.sequence_length * dims.top_k);
  const double factor = scale * static_cast<double>(dims.num_experts) / (num_slots * length);
  for (std::size_t i = 0; i < counts.size(); ++i)
    slopes[i] = static_cast<float>(factor * counts[i]);
}

double z_loss_sum(std::span<const float> lse) {
  double sum = 0;
  for (const float value : lse) sum += static_cast<double>(value) * static_cast<double>(value);
  return sum;
}

}  // namespace switchyard
