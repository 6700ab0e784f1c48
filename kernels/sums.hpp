// Sums in double that stay on the device: each is added to a number that lies there, and the host
// reads it when it wants it. Terms are taken in blocks of fixed size, and the blocks in an order
// that the sizes alone decide (on the CPU one after the other): the same bits for any number of
// threads.
#pragma once

#include <span>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// into[0] += (sum of values) / divisor. values: f32, rows may be strided; into: f64 [1].
void add_sum(const TensorView& values, double divisor, const TensorView& into);

// into[0] += sum of the squares of all elements, one tensor after the other. tensors: f32, rows may
// be strided, on one device; into: f64 [1].
void add_sum_of_squares(std::span<const TensorView> tensors, const TensorView& into);

// into[i] += values[i] / divisor. values, into: f64 [n].
void add_quotients(const TensorView& values, double divisor, const TensorView& into);

}  // namespace switchyard::kernels
