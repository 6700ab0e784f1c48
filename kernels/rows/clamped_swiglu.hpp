// The SwiGLU of gpt-oss (OpenAI 2025, gpt-oss/torch/model.py):
//   act = (u + 1) g sigmoid(alpha g),   g = min(gate, limit),   u = up within [-limit, limit]
// Where gate or up lies beyond the limit, its gradient is 0. Shapes and types as in
// kernels/rows/swiglu.hpp: gate_up [rows, 2 I], gate in the first I columns; act [rows, I]; f32 or
// bf16, computed in fp32.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

struct SwigluClamp {
  float alpha = 1.702f;
  float limit = 7.0f;  // above 0
};

void clamped_swiglu_forward(const TensorView& gate_up, const SwigluClamp& clamp,
                            const TensorView& act);

// d_gate_up is written (it may be gate_up itself); act is computed again and written.
void clamped_swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                             const SwigluClamp& clamp, const TensorView& d_gate_up,
                             const TensorView& act);

}  // namespace switchyard::kernels
