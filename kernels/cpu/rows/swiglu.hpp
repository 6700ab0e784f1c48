// The CPU twins of kernels/rows/swiglu.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

void swiglu_forward(const TensorView& gate_up, const TensorView& act);
void swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                     const TensorView& d_gate_up, const TensorView& act);
void sigmoid_forward(const TensorView& logits, const TensorView& gate);
void sigmoid_backward(const TensorView& dgate, const TensorView& gate, const TensorView& dlogits);

}  // namespace switchyard::kernels::cpu
