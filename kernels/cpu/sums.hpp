// Sums in double whose order depends on the number of elements alone: blocks of fixed size, each
// summed on its own, then the blocks in order.
#pragma once

#include "kernels/sums.hpp"

namespace switchyard::kernels::cpu {

void add_sum(const TensorView& values, double divisor, const TensorView& into);
void add_sum_of_squares(std::span<const TensorView> tensors, const TensorView& into);
void add_quotients(const TensorView& values, double divisor, const TensorView& into);

}  // namespace switchyard::kernels::cpu
