// The CUDA twins of kernels/sums/sums.hpp. The order of a sum: chunks of fixed size, in each of
// which a thread adds every so manyth element and threads are added in a tree; then the chunks
// likewise.
#pragma once

#include "kernels/sums/sums.hpp"

namespace switchyard::kernels::cuda {

void add_sum(const TensorView& values, double divisor, const TensorView& into);
void add_sum_of_squares(std::span<const TensorView> tensors, const TensorView& into);
void add_quotients(const TensorView& values, double divisor, const TensorView& into);

}  // namespace switchyard::kernels::cuda
