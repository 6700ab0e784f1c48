// The CUDA twins of kernels/weigh.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

void weigh(const TensorView& scores, const TensorView& indices, bool renormalize,
           const TensorView& weights);
void weigh_backward(const TensorView& dweights, const TensorView& scores, const TensorView& indices,
                    bool renormalize, const TensorView& dchosen);

}  // namespace switchyard::kernels::cuda
