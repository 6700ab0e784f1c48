// How often each expert was chosen, in integers, and what follows from it for the bias that
// balances the choice without a loss. Legend: S sequences, E experts.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// totals[e] = sum over s of counts[s, e]. counts: i32 [S, E], contiguous; totals: i64 [E], written.
void sum_counts(const TensorView& counts, const TensorView& totals);

// into[i] += counts[i]. Both i64 [n].
void add_counts(const TensorView& counts, const TensorView& into);

// counts[s, e] = totals[e]. totals: i64 [E], each below 2^31; counts: i32 [S, E], contiguous,
// written.
void spread_counts(const TensorView& totals, const TensorView& counts);

// Balance without a loss (DeepSeek-V3, 2024, section 2.1.2; Wang et al. 2024): where decision[1]
// (kernels/sums/step_figures.hpp) is not 0,
//   bias[e] += rate * sign(mean of all counts - counts[e])
// and else nothing changes. The comparison is of integers, so it is exact, and an expert at the
// mean stays. counts: i64 [E] of the whole step, of all ranks; decision: f32 [2]; bias: f32 [E].
void move_selection_bias(const TensorView& counts, const TensorView& decision, float rate,
                         const TensorView& bias);

}  // namespace switchyard::kernels
