// The CPU twins of kernels/rows/embedding.hpp.
#pragma once

#include "kernels/gradient_sum.hpp"

namespace switchyard::kernels::cpu {

void embedding_forward(const TensorView& tokens, const TensorView& table, const TensorView& out);
void embedding_backward(const TensorView& tokens, const TensorView& dout,
                        const GradientSum& dtable);

}  // namespace switchyard::kernels::cpu
