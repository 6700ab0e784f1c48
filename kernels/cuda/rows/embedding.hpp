// The CUDA twins of kernels/rows/embedding.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

void embedding_forward(const TensorView& tokens, const TensorView& table, const TensorView& out);
void embedding_backward(const TensorView& tokens, const TensorView& dout, const TensorView& dtable);

}  // namespace switchyard::kernels::cuda
