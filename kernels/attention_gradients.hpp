// What the backward pass of attention writes, for its implementations.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

struct AttentionGradients {
  const TensorView& dq;
  const TensorView& dk;
  const TensorView& dv;
};

}  // namespace switchyard::kernels
