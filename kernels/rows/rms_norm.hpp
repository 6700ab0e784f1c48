// RMSNorm (Zhang and Sennrich 2019), optionally fused with the residual addition before it:
//   s = x + delta      rstd = 1 / sqrt(mean(s^2) + epsilon)      y = s * rstd * weight
// Statistics in fp32. x, delta, sum, y: [T, H] of one type (f32 or bf16); weight: f32 [H].
#pragma once

#include "kernels/gradient_sum.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Writes y and rstd (f32 [T]).
void rms_norm_forward(const TensorView& x, const TensorView& weight, float epsilon,
                      const TensorView& y, const TensorView& rstd);

// sum = x + delta (rounded to its type first), then as above on sum. sum may be x or delta.
void add_rms_norm_forward(const TensorView& x, const TensorView& delta, const TensorView& weight,
                          float epsilon, const TensorView& sum, const TensorView& y,
                          const TensorView& rstd);

// dx = dy through the norm of x, plus residual_gradient (same type; may be dx itself; may be
// empty). dweight += its gradient, summed over rows in a fixed order. dweight: f32 or i64 [H].
// workspace: u8, at least rms_norm_workspace_bytes(device, H).
void rms_norm_backward(const TensorView& dy, const TensorView& x, const TensorView& weight,
                       const TensorView& rstd, const TensorView& residual_gradient,
                       const TensorView& dx, const GradientSum& dweight,
                       const TensorView& workspace);

// For the device, or for the one that it plans for.
std::int64_t rms_norm_workspace_bytes(const Device& device, std::int64_t hidden);

}  // namespace switchyard::kernels
