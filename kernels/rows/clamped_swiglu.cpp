#include "kernels/rows/clamped_swiglu.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/rows/clamped_swiglu.hpp"
#include "kernels/cuda/rows/clamped_swiglu.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check(const TensorView& gate_up, const SwigluClamp& clamp, const TensorView& act) {
  expect(is_float(act.dtype), "act of type f32 or bf16");
  expect_matrix(gate_up, act.dtype, act.rows(), 2 * act.cols(), "gate_up [rows, 2 I] like act");
  expect(clamp.limit > 0, "a limit above 0");
}

}  // namespace

void clamped_swiglu_forward(const TensorView& gate_up, const SwigluClamp& clamp,
                            const TensorView& act) {
  if (act.empty()) return;
  check(gate_up, clamp, act);
  dispatch(
      *act.device, [&] { cpu::clamped_swiglu_forward(gate_up, clamp, act); },
      [&] { plan::clamped_swiglu_forward(gate_up, act); },
      [&] { cuda::clamped_swiglu_forward(gate_up, clamp, act); });
}

void clamped_swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                             const SwigluClamp& clamp, const TensorView& d_gate_up,
                             const TensorView& act) {
  if (act.empty()) return;
  check(gate_up, clamp, act);
  expect_matrix(d_act, act.dtype, act.rows(), act.cols(), "d_act like act");
  expect_matrix(d_gate_up, act.dtype, act.rows(), 2 * act.cols(), "d_gate_up like gate_up");
  dispatch(
      *act.device, [&] { cpu::clamped_swiglu_backward(d_act, gate_up, clamp, d_gate_up, act); },
      [&] { plan::clamped_swiglu_backward(gate_up, act); },
      [&] { cuda::clamped_swiglu_backward(d_act, gate_up, clamp, d_gate_up, act); });
}

}  // namespace switchyard::kernels
