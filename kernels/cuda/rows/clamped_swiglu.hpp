// The CUDA twins of kernels/rows/clamped_swiglu.hpp.
#pragma once

#include "kernels/rows/clamped_swiglu.hpp"

namespace switchyard::kernels::cuda {

void clamped_swiglu_forward(const TensorView& gate_up, const SwigluClamp& clamp,
                            const TensorView& act);
void clamped_swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                             const SwigluClamp& clamp, const TensorView& d_gate_up,
                             const TensorView& act);

}  // namespace switchyard::kernels::cuda
