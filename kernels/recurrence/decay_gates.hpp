// The numbers of each token and head that recurrent mixers learn from x, in fp32:
//   step = softplus(logit + bias)    gate = -e^{rate} step <= 0      Mamba-2, gated DeltaNet
//   beta = most sigmoid(logit)                                       DeltaNet; most: 1 or 2
// logits: [T, A], f32 or bf16, rows may be strided; rate (Mamba's A_log), bias: f32 [A]; steps,
// gates, betas: f32 [T, A].
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// steps and gates are written; steps may be empty.
void decay_gates_forward(const TensorView& logits, const TensorView& rate, const TensorView& bias,
                         const TensorView& steps, const TensorView& gates);
// dsteps: of what else the steps were used for, or empty. dlogits: written, like logits; drate,
// dbias: f32 [A], added to in the order of the tokens.
void decay_gates_backward(const TensorView& dgates, const TensorView& dsteps,
                          const TensorView& logits, const TensorView& rate, const TensorView& bias,
                          const TensorView& dlogits, const TensorView& drate,
                          const TensorView& dbias);

void beta_gates_forward(const TensorView& logits, float most, const TensorView& betas);
void beta_gates_backward(const TensorView& dbetas, const TensorView& betas, float most,
                         const TensorView& dlogits);

}  // namespace switchyard::kernels
