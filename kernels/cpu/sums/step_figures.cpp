#include "kernels/cpu/sums/step_figures.hpp"

#include <algorithm>
#include <cmath>

namespace switchyard::kernels::cpu {

void write_figures(std::span<const double> values, const TensorView& to) {
  std::ranges::copy(values, to.as<double>());
}

void combine_figures(const TensorView& by_rank, std::int64_t num_sums, const TensorView& combined) {
  double* out = combined.as<double>();
  std::copy_n(by_rank.row<double>(0), by_rank.cols(), out);
  for (std::int64_t rank = 1; rank < by_rank.rows(); ++rank) {
    const double* theirs = by_rank.row<double>(rank);
    for (std::int64_t i = 0; i < num_sums; ++i) out[i] += theirs[i];
    for (std::int64_t i = num_sums; i < by_rank.cols(); ++i) out[i] = std::max(out[i], theirs[i]);
  }
}

void decide_update(const TensorView& figures, const UpdateRule& rule, const TensorView& outcome,
                   const TensorView& decision) {
  const double* figure = figures.as<double>();
  const auto loss_of = [&](std::size_t i) { return rule.loss_scale[i] * figure[i]; };
  const double loss = loss_of(0) + rule.balance_weight * loss_of(1) + rule.z_weight * loss_of(2);
  const double norm = figure[3] > rule.most_square ? std::numeric_limits<double>::infinity()
                                                   : std::sqrt(figure[3] + (figure[4] + figure[5]));
  const bool overflowed = figure[6] > 0;
  const bool clips = rule.clip_norm > 0 && norm > rule.clip_norm;
  outcome.as<double>()[0] = loss;
  outcome.as<double>()[1] = norm;
  decision.as<float>()[0] = clips ? static_cast<float>(rule.clip_norm / norm) : 1.0f;
  decision.as<float>()[1] = std::isfinite(loss) && std::isfinite(norm) && !overflowed ? 1.0f : 0.0f;
}

}  // namespace switchyard::kernels::cpu
