// The CPU twins of kernels/routing/score.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

void score_softmax(const TensorView& logits, const TensorView& scores, const TensorView& lse);
void score_softmax_backward(const TensorView& dchosen, const TensorView& indices,
                            const TensorView& slopes, float z_slope, const TensorView& scores,
                            const TensorView& lse, const TensorView& dlogits);
void score_sigmoid(const TensorView& logits, const TensorView& scores, const TensorView& lse);
void divide_by_row_sums(const TensorView& x, const TensorView& out);
void score_sigmoid_backward(const TensorView& dchosen, const TensorView& indices,
                            const TensorView& slopes, float z_slope, const TensorView& logits,
                            const TensorView& scores, const TensorView& lse,
                            const TensorView& dlogits);

}  // namespace switchyard::kernels::cpu
