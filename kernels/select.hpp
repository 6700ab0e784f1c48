// Which experts a token chooses.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// The k largest scores of each row, largest first, ties to the lower expert. Of a row whose scores
// cannot be ordered (NaN, all -infinity) the lowest experts that are left are taken, so that every
// index is legal and a row's are different. scores: f32 [T, E]; indices: i32 [T, k], written.
void select_top_k(const TensorView& scores, const TensorView& indices);

}  // namespace switchyard::kernels
