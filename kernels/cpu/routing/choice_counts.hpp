// The CPU twins of kernels/routing/choice_counts.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

void sum_counts(const TensorView& counts, const TensorView& totals);
void add_counts(const TensorView& counts, const TensorView& into);
void spread_counts(const TensorView& totals, const TensorView& counts);
void move_selection_bias(const TensorView& counts, const TensorView& decision, float rate,
                         const TensorView& bias);

}  // namespace switchyard::kernels::cpu
