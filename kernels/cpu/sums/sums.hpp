// Sums in double whose order depends on the number of elements alone: blocks of fixed size, each
// summed on its own, then the blocks in order.
#pragma once

#include "kernels/sums/sums.hpp"

namespace switchyard::kernels::cpu {

void add_sum(const TensorView& values, double divisor, const TensorView& into);
void add_sum_of_squares(std::span<const TensorView> tensors, const TensorView& into);
void add_quotients(const TensorView& values, double divisor, const TensorView& into);

void add_exact_sum(const TensorView& values, const ExactTerms& terms, const TensorView& into);
void add_exact_sum_of_squares(std::span<const TensorView> tensors, int fraction_bits,
                              const SquareParts& parts, const TensorView& into);
void count_nonzero(const TensorView& numbers, const TensorView& into);

}  // namespace switchyard::kernels::cpu
