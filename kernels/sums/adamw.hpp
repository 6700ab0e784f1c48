// AdamW (Loshchilov and Hutter 2019) fused in one pass.
#pragma once

#include <span>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// What the host knows of an update.
struct AdamWScalars {
  float learning_rate = 0;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float epsilon = 1e-8f;
  std::int64_t step = 1;  // counts from 1: bias correction
  int fraction_bits = 0;  // of gradients in fixed point (kernels/gradient_sum.hpp)
};

// f32, contiguous, of one numel, which may be 0. The gradient may be i64 in fixed point, then it is
// taken as f32.
struct AdamWTensor {
  TensorView value, gradient, moment1, moment2;
  float weight_decay = 0;  // 0 for norms and biases
};

// decision: f32 [2], what only the device knows when this is called
// (kernels/sums/step_figures.hpp):
//   decision[0]  multiplies every gradient: clipping
//   decision[1]  "go": 0 if nothing may change; then no value and no moment does
// Else, with g = decision[0] * gradient,
//   moment1 = beta1 moment1 + (1 - beta1) g      m = moment1 / (1 - beta1^step)
//   moment2 = beta2 moment2 + (1 - beta2) g^2    v = moment2 / (1 - beta2^step)
//   value  -= learning_rate (m / (sqrt(v) + epsilon) + weight_decay value)
// The gradients are left as they are. All tensors and the decision are on one device.
void adamw(std::span<const AdamWTensor> tensors, const AdamWScalars& scalars,
           const TensorView& decision);

// 1 / (1 - beta^step)
float adamw_bias_correction(float beta, std::int64_t step);

}  // namespace switchyard::kernels
