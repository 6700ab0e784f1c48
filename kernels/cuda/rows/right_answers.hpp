// The CUDA twin of kernels/rows/right_answers.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

void right_answers(const TensorView& logits, const TensorView& targets, std::int64_t vocab_size,
                   const TensorView& weights, const TensorView& right);

}  // namespace switchyard::kernels::cuda
