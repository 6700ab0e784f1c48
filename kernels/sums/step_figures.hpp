// The small numbers of a step, which ranks tell each other: how they add up, and what follows from
// them for the update, on the device. So an update can be put on the stream before the host knows
// of a loss or a norm.
#pragma once

#include <array>
#include <limits>
#include <span>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// to[i] = values[i]: what the host contributes. The values go with the call, so that, unlike a
// copy, it waits for nothing. to: f64 [n], n at most most_written_figures.
inline constexpr std::int64_t most_written_figures = 32;
void write_figures(std::span<const double> values, const TensorView& to);

// by_rank: f64 [P, n], a row from each rank; combined: f64 [n], written. Columns before num_sums
// are added up in the order of ranks; of the others the largest is taken, one after the other in
// that order: combined = combined < next ? next : combined.
void combine_figures(const TensorView& by_rank, std::int64_t num_sums, const TensorView& combined);

struct UpdateRule {
  double balance_weight = 0;
  double z_weight = 0;
  double clip_norm = 0;  // 0: no clipping
  // The losses are the sums of the step times these: exact sums are divided when all is added up.
  std::array<double, 3> loss_scale = {1, 1, 1};
  // A larger first part of the norm's square counts as infinite: its sum is no longer exact.
  double most_square = std::numeric_limits<double>::infinity();
};
// figures: f64 [7] of the whole step: sums of cross-entropy, balance loss and z loss, square of the
// gradient norm as a sum of three parts (kernels/sums/sums.hpp; two are 0 unless sums are exact),
// and how many parameters had terms that no exact sum can hold. Written: outcome, f64 [2]: loss =
// cross-entropy + balance_weight * balance + z_weight * z, each times its scale, and the norm;
// decision, f32 [2] (kernels/sums/adamw.hpp): the factor clip_norm / norm where the norm is above
// it, else 1, rounded from double; and 1 if loss and norm are both finite and no sum overflowed,
// else 0.
inline constexpr std::int64_t num_update_figures = 7;
void decide_update(const TensorView& figures, const UpdateRule& rule, const TensorView& outcome,
                   const TensorView& decision);

}  // namespace switchyard::kernels
