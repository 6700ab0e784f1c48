// The CPU twins of kernels/recurrence/decay_gates.hpp.
#pragma once

#include "kernels/recurrence/decay_gates.hpp"

namespace switchyard::kernels::cpu {

void decay_gates_forward(const TensorView& logits, const TensorView& rate, const TensorView& bias,
                         const TensorView& steps, const TensorView& gates);
void decay_gates_backward(const TensorView& dgates, const TensorView& dsteps,
                          const TensorView& logits, const TensorView& rate, const TensorView& bias,
                          const TensorView& dlogits, const TensorView& drate,
                          const TensorView& dbias);
void beta_gates_forward(const TensorView& logits, float most, const TensorView& betas);
void beta_gates_backward(const TensorView& dbetas, const TensorView& betas, float most,
                         const TensorView& dlogits);

}  // namespace switchyard::kernels::cpu
