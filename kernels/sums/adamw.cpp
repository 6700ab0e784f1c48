#include "kernels/sums/adamw.hpp"

#include <cmath>

#include "kernels/check.hpp"
#include "kernels/cpu/sums/adamw.hpp"
#include "kernels/cuda/sums/adamw.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check(const AdamWTensor& tensor) {
  const auto is_like_value = [&](const TensorView& view) {
    return view.is_contiguous() && view.numel() == tensor.value.numel();
  };
  for (const TensorView& view : {tensor.value, tensor.moment1, tensor.moment2})
    expect(view.dtype == DType::f32 && is_like_value(view),
           "value and moments f32, contiguous, of one size");
  expect((tensor.gradient.dtype == DType::f32 || tensor.gradient.dtype == DType::i64) &&
             is_like_value(tensor.gradient),
         "a contiguous gradient like the value, f32 or i64");
}

}  // namespace

void adamw(std::span<const AdamWTensor> tensors, const AdamWScalars& scalars,
           const TensorView& decision) {
  for (const AdamWTensor& tensor : tensors) check(tensor);
  expect(scalars.step >= 1, "steps counted from 1");
  expect_vector(decision, DType::f32, 2, "decision f32 [2]");
  dispatch(
      *decision.device, [&] { cpu::adamw(tensors, scalars, decision); },
      [&] { plan::adamw(tensors); },
      [&] {
        for (const AdamWTensor& tensor : tensors) in_fp32(tensor.gradient);
        cuda::adamw(tensors, scalars, decision);
      });
}

float adamw_bias_correction(float beta, std::int64_t step) {
  return static_cast<float>(1.0 /
                            (1.0 - std::pow(static_cast<double>(beta), static_cast<double>(step))));
}

}  // namespace switchyard::kernels
