// The CPU twins of kernels/recurrence/memory_gate.hpp.
#pragma once

#include "kernels/recurrence/memory_gate.hpp"

namespace switchyard::kernels::cpu {

void memory_gate_forward(const TensorView& memory, const TensorView& local, const TensorView& gate,
                         const TensorView& out);
void memory_gate_backward(const TensorView& dout, const TensorView& memory, const TensorView& local,
                          const TensorView& gate, const TensorView& dmemory,
                          const TensorView& dlocal, const TensorView& dgate);

}  // namespace switchyard::kernels::cpu
