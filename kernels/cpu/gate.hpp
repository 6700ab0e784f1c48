// The CPU twins of kernels/gate.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

void gate_forward(const TensorView& logits, bool renormalize, const TensorView& probs,
                  const TensorView& lse, const TensorView& indices, const TensorView& weights);
void gate_backward(const TensorView& dweights, const TensorView& probs, const TensorView& lse,
                   const TensorView& indices, bool renormalize, const TensorView& prob_slopes,
                   float z_slope, const TensorView& dlogits);
void gate_statistics(const TensorView& probs, const TensorView& indices,
                     std::int64_t sequence_length, const TensorView& counts,
                     const TensorView& prob_sums);

}  // namespace switchyard::kernels::cpu
