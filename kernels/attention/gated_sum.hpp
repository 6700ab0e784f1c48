// Several branches of attention, each head of each weighed by a number of its own (Yuan et al.,
// "Native Sparse Attention", 2025):
//   out[t] = sum over c of gate[t, c, h] branch_c[t], of head h
// With one branch it weighs the heads of a matrix: the gradient of branch c is dout by its gates,
// that of gate c is what attention_delta gives of branch c and dout. Sums in fp32, by branch. On
// the CPU only.
// Legend: T tokens, C branches, A heads, D head_dim.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// branches: [C T, A D], branch after branch; gates: f32 [T, C A], rows may be strided; out: [T, A
// D] like branches, written.
void gated_sum(const TensorView& branches, const TensorView& gates, std::int64_t num_heads,
               const TensorView& out);

}  // namespace switchyard::kernels
