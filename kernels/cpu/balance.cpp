#include "kernels/cpu/balance.hpp"

#include <span>

namespace switchyard::kernels::cpu {

void add_auxiliary_losses(const TensorView& counts, const TensorView& prob_sums,
                          const TensorView& lse, const AuxiliaryScale& scale,
                          const TensorView& sums) {
  const std::span<const std::int32_t> count = counts.span<std::int32_t>();
  const std::span<const float> prob_sum = prob_sums.span<float>();
  const double length = static_cast<double>(scale.sequence_length);
  const double num_slots = static_cast<double>(scale.sequence_length * scale.top_k);
  double products = 0;
  for (std::size_t i = 0; i < count.size(); ++i)
    products += (count[i] / num_slots) * (static_cast<double>(prob_sum[i]) / length);
  double squares = 0;
  for (const float value : lse.span<float>())
    squares += static_cast<double>(value) * static_cast<double>(value);
  const std::span<double> out = sums.span<double>();
  out[0] += static_cast<double>(counts.cols()) * products / scale.num_sequences;
  out[1] += squares / scale.num_tokens;
}

void balance_slopes(const TensorView& counts, std::int64_t top_k, std::int64_t sequence_length,
                    double weight, const TensorView& slopes) {
  const std::span<const std::int32_t> count = counts.span<std::int32_t>();
  const std::span<float> slope = slopes.span<float>();
  const double length = static_cast<double>(sequence_length);
  const double num_slots = static_cast<double>(sequence_length * top_k);
  const double factor = weight * static_cast<double>(counts.cols()) / (num_slots * length);
  for (std::size_t i = 0; i < count.size(); ++i) slope[i] = static_cast<float>(factor * count[i]);
}

}  // namespace switchyard::kernels::cpu
