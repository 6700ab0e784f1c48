// What is read from a memory and what is attended to, mixed by a learned share of each head
// (Infini-attention: Munkhdalai et al. 2024):
//   out = s memory + (1 - s) local,   s = sigmoid(gate_h)
// memory, local, out and their gradients: [T, A d] of one type (f32 or bf16), rows may be strided;
// gate, dgate: f32 [A]. Arithmetic in fp32.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

void memory_gate_forward(const TensorView& memory, const TensorView& local, const TensorView& gate,
                         const TensorView& out);
// dmemory, dlocal: written; dmemory may be dout. dgate: added to, in the order of the tokens.
void memory_gate_backward(const TensorView& dout, const TensorView& memory, const TensorView& local,
                          const TensorView& gate, const TensorView& dmemory,
                          const TensorView& dlocal, const TensorView& dgate);

}  // namespace switchyard::kernels
