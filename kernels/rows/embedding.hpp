// Rows of a table by token. tokens: i32 [T], each in [0, V); table: f32 [V, H].
#pragma once

#include "kernels/gradient_sum.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// out: [T, H], f32 or bf16.
void embedding_forward(const TensorView& tokens, const TensorView& table, const TensorView& out);

// dtable (f32 or i64 [V, H]) += rows of dout (f32 or bf16), in token order for each row of the
// table; exact sums take each row of dout as a term.
void embedding_backward(const TensorView& tokens, const TensorView& dout,
                        const GradientSum& dtable);

}  // namespace switchyard::kernels
