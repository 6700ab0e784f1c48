#include "kernels/rows/swiglu.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/rows/swiglu.hpp"
#include "kernels/cuda/rows/swiglu.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void swiglu_forward(const TensorView& gate_up, const TensorView& act) {
  if (act.empty()) return;
  expect(is_float(act.dtype), "act of type f32 or bf16");
  expect_matrix(gate_up, act.dtype, act.rows(), 2 * act.cols(), "gate_up [rows, 2 I] like act");
  dispatch(
      *act.device, [&] { cpu::swiglu_forward(gate_up, act); },
      [&] { plan::swiglu_forward(gate_up, act); }, [&] { cuda::swiglu_forward(gate_up, act); });
}

void swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                     const TensorView& d_gate_up, const TensorView& act) {
  if (act.empty()) return;
  expect(is_float(act.dtype), "act of type f32 or bf16");
  expect_matrix(d_act, act.dtype, act.rows(), act.cols(), "d_act like act");
  expect_matrix(gate_up, act.dtype, act.rows(), 2 * act.cols(), "gate_up [rows, 2 I] like act");
  expect_matrix(d_gate_up, act.dtype, act.rows(), 2 * act.cols(), "d_gate_up like gate_up");
  dispatch(
      *act.device, [&] { cpu::swiglu_backward(d_act, gate_up, d_gate_up, act); },
      [&] { plan::swiglu_backward(gate_up, act); },
      [&] { cuda::swiglu_backward(d_act, gate_up, d_gate_up, act); });
}

void sigmoid_forward(const TensorView& logits, const TensorView& gate) {
  if (gate.empty()) return;
  expect_vector(logits, DType::f32, gate.numel(), "logits f32 [n]");
  expect_vector(gate, DType::f32, gate.numel(), "gate f32 [n]");
  dispatch(
      *gate.device, [&] { cpu::sigmoid_forward(logits, gate); },
      [&] { plan::sigmoid_forward(gate); }, [&] { cuda::sigmoid_forward(logits, gate); });
}

void sigmoid_backward(const TensorView& dgate, const TensorView& gate, const TensorView& dlogits) {
  if (gate.empty()) return;
  expect_vector(dgate, DType::f32, gate.numel(), "dgate f32 [n]");
  expect_vector(gate, DType::f32, gate.numel(), "gate f32 [n]");
  expect_vector(dlogits, DType::f32, gate.numel(), "dlogits f32 [n]");
  dispatch(
      *gate.device, [&] { cpu::sigmoid_backward(dgate, gate, dlogits); },
      [&] { plan::sigmoid_backward(gate); }, [&] { cuda::sigmoid_backward(dgate, gate, dlogits); });
}

}  // namespace switchyard::kernels
