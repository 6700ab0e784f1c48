#include "kernels/recurrence/memory_gate.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/recurrence/memory_gate.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check(const TensorView& memory, const TensorView& local, const TensorView& gate,
           const TensorView& out) {
  expect(is_float(memory.dtype), "memory of type f32 or bf16");
  for (const TensorView* each : {&local, &out})
    expect_matrix(*each, memory.dtype, memory.rows(), memory.cols(), "operands like the memory");
  expect_vector(gate, DType::f32, gate.numel(), "gate: f32 [heads]");
  expect(!gate.empty() && memory.cols() % gate.numel() == 0, "whole heads");
}

}  // namespace

void memory_gate_forward(const TensorView& memory, const TensorView& local, const TensorView& gate,
                         const TensorView& out) {
  if (memory.empty()) return;
  check(memory, local, gate, out);
  dispatch(
      *memory.device, [&] { cpu::memory_gate_forward(memory, local, gate, out); },
      [&] { plan::memory_gate_forward(memory); });
}

void memory_gate_backward(const TensorView& dout, const TensorView& memory, const TensorView& local,
                          const TensorView& gate, const TensorView& dmemory,
                          const TensorView& dlocal, const TensorView& dgate) {
  if (memory.empty()) return;
  check(memory, local, gate, dout);
  check(memory, dmemory, dgate, dlocal);
  expect(gate.numel() == dgate.numel(), "dgate like the gate");
  dispatch(
      *memory.device,
      [&] { cpu::memory_gate_backward(dout, memory, local, gate, dmemory, dlocal, dgate); },
      [&] { plan::memory_gate_backward(memory); });
}

}  // namespace switchyard::kernels
