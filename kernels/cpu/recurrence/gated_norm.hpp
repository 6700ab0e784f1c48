// The CPU twins of kernels/recurrence/gated_norm.hpp.
#pragma once

#include "kernels/recurrence/gated_norm.hpp"

namespace switchyard::kernels::cpu {

// The gradient of the weight is summed over this many runs of rows, and then over the runs in
// order.
inline constexpr std::int64_t gated_norm_row_chunks = 64;

void gated_norm_forward(const GatedNorm& norm, const TensorView& x, const TensorView& z,
                        const TensorView& weight, const TensorView& y);
void gated_norm_backward(const GatedNorm& norm, const TensorView& dy, const TensorView& x,
                         const TensorView& z, const TensorView& weight, const TensorView& dx,
                         const TensorView& dz, const TensorView& dweight,
                         const TensorView& workspace);

}  // namespace switchyard::kernels::cpu
