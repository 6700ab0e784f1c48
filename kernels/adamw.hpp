// AdamW (Loshchilov and Hutter 2019) fused in one pass, and the norm for clipping.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

struct AdamWScalars {
  float learning_rate = 0;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float epsilon = 1e-8f;
  float weight_decay = 0;    // 0 for norms and biases
  float gradient_scale = 1;  // clipping; multiplies every gradient
  std::int64_t step = 1;     // counts from 1: bias correction
};

// value, gradient, moment1, moment2: f32, contiguous, same numel. value -= learning_rate *
// (m1_hat / (sqrt(m2_hat) + epsilon) + weight_decay * value). The gradient is left as it is.
void adamw(const TensorView& value, const TensorView& gradient, const TensorView& moment1,
           const TensorView& moment2, const AdamWScalars& scalars);

// Sum of squares of an f32 view in double, in blocks of fixed size added in a fixed order: the same
// bits for any number of threads. 0 on the plan device.
double sum_of_squares(const TensorView& x);

}  // namespace switchyard::kernels
