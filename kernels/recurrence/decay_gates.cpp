#include "kernels/recurrence/decay_gates.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/recurrence/decay_gates.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check_tokens(const TensorView& logits, const TensorView& values, std::string_view what) {
  expect_matrix(values, DType::f32, logits.rows(), logits.cols(), what);
}

void check_decay(const TensorView& logits, const TensorView& rate, const TensorView& bias,
                 const TensorView& steps, const TensorView& gates) {
  expect(is_float(logits.dtype), "logits of type f32 or bf16");
  for (const TensorView* each : {&rate, &bias})
    expect_vector(*each, DType::f32, logits.cols(), "rate and bias: f32 [heads]");
  if (!steps.empty()) check_tokens(logits, steps, "steps: f32 [tokens, heads]");
  check_tokens(logits, gates, "gates: f32 [tokens, heads]");
}

}  // namespace

void decay_gates_forward(const TensorView& logits, const TensorView& rate, const TensorView& bias,
                         const TensorView& steps, const TensorView& gates) {
  if (logits.empty()) return;
  check_decay(logits, rate, bias, steps, gates);
  dispatch(
      *logits.device, [&] { cpu::decay_gates_forward(logits, rate, bias, steps, gates); },
      [&] { plan::decay_gates_forward(gates); });
}

void decay_gates_backward(const TensorView& dgates, const TensorView& dsteps,
                          const TensorView& logits, const TensorView& rate, const TensorView& bias,
                          const TensorView& dlogits, const TensorView& drate,
                          const TensorView& dbias) {
  if (logits.empty()) return;
  check_decay(logits, rate, bias, dsteps, dgates);
  check_decay(logits, drate, dbias, {}, dgates);
  expect_matrix(dlogits, logits.dtype, logits.rows(), logits.cols(), "dlogits like logits");
  dispatch(
      *logits.device,
      [&] { cpu::decay_gates_backward(dgates, dsteps, logits, rate, bias, dlogits, drate, dbias); },
      [&] { plan::decay_gates_backward(dgates); });
}

void beta_gates_forward(const TensorView& logits, float most, const TensorView& betas) {
  if (logits.empty()) return;
  expect(is_float(logits.dtype), "logits of type f32 or bf16");
  check_tokens(logits, betas, "betas: f32 [tokens, heads]");
  dispatch(
      *logits.device, [&] { cpu::beta_gates_forward(logits, most, betas); },
      [&] { plan::sigmoid_forward(betas); });
}

void beta_gates_backward(const TensorView& dbetas, const TensorView& betas, float most,
                         const TensorView& dlogits) {
  if (dlogits.empty()) return;
  expect(is_float(dlogits.dtype), "dlogits of type f32 or bf16");
  for (const TensorView* each : {&dbetas, &betas})
    check_tokens(dlogits, *each, "betas and dbetas: f32 [tokens, heads]");
  dispatch(
      *dlogits.device, [&] { cpu::beta_gates_backward(dbetas, betas, most, dlogits); },
      [&] { plan::sigmoid_backward(betas); });
}

}  // namespace switchyard::kernels
