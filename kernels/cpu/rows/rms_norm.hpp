// The CPU twins of kernels/rows/rms_norm.hpp.
#pragma once

#include "kernels/gradient_sum.hpp"

namespace switchyard::kernels::cpu {

// The gradient of the weight is summed over this many runs of rows, each into a partial sum of its
// own, and then over the runs in order: the same bits for any number of threads.
inline constexpr std::int64_t rms_norm_row_chunks = 64;
// Rows of a unit whose gradients of the weight are a term of an exact sum.
inline constexpr std::int64_t rms_norm_term_rows = 64;

void rms_norm_forward(const TensorView& x, const TensorView& weight, float epsilon,
                      const TensorView& y, const TensorView& rstd);
void add_rms_norm_forward(const TensorView& x, const TensorView& delta, const TensorView& weight,
                          float epsilon, const TensorView& sum, const TensorView& y,
                          const TensorView& rstd);
void rms_norm_backward(const TensorView& dy, const TensorView& x, const TensorView& weight,
                       const TensorView& rstd, const TensorView& residual_gradient,
                       const TensorView& dx, const GradientSum& dweight,
                       const TensorView& workspace);
std::int64_t rms_norm_workspace_bytes(std::int64_t hidden, int num_threads);

}  // namespace switchyard::kernels::cpu
