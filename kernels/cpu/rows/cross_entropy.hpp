// The CPU twin of the loss in kernels/rows/cross_entropy.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

void softmax_cross_entropy(const TensorView& logits, const TensorView& targets,
                           std::int64_t vocab_size, float gradient_scale, const TensorView& losses,
                           const TensorView& dlogits, const TensorView& weights);

}  // namespace switchyard::kernels::cpu
