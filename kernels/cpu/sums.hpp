// Sums in double whose order depends on the number of elements alone: blocks of fixed size, each
// summed on its own, then the blocks in order.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

double sum(const TensorView& values);
double sum_of_squares(const TensorView& x);

}  // namespace switchyard::kernels::cpu
