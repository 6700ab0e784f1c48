// SwiGLU (Shazeer 2020): act = silu(gate) * up, silu(g) = g / (1 + exp(-g)).
// gate_up: [rows, 2 I], gate in the first I columns; act: [rows, I]. f32 or bf16; computed in fp32.
// And its sigmoid alone, for gates of one number a row.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

void swiglu_forward(const TensorView& gate_up, const TensorView& act);

// d_gate_up is written (it may be gate_up itself); act is computed again and written.
void swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                     const TensorView& d_gate_up, const TensorView& act);

// gate = 1 / (1 + exp(-logits)). f32, contiguous, of one numel; gate may be logits.
void sigmoid_forward(const TensorView& logits, const TensorView& gate);

// dlogits = dgate * gate * (1 - gate), of the gate that forward wrote. dlogits may be dgate.
void sigmoid_backward(const TensorView& dgate, const TensorView& gate, const TensorView& dlogits);

}  // namespace switchyard::kernels
