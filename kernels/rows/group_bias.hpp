// A vector for each group of rows, added to them: y[r] += bias[g] for the rows r of group g. The
// gradient of the bias is a product of the rows with a column of ones
// (kernels/products/grouped_linear.hpp, where offsets are described, too).
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// bias: [groups, N]; offsets: i32 [groups + 1], or empty if the only group has all rows; y: [rows,
// N], f32 or bf16 as bias, rows may be strided. Rows from offsets[groups] on are left alone.
void add_group_bias(const TensorView& bias, const TensorView& offsets, const TensorView& y);

}  // namespace switchyard::kernels
