#include "kernels/adamw.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/adamw.hpp"
#include "kernels/cpu/sums.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void adamw(const TensorView& value, const TensorView& gradient, const TensorView& moment1,
           const TensorView& moment2, const AdamWScalars& scalars) {
  if (value.empty()) return;
  for (const TensorView& view : {value, gradient, moment1, moment2})
    expect(view.dtype == DType::f32 && view.is_contiguous() && view.numel() == value.numel(),
           "value, gradient and moments f32, contiguous, of one size");
  expect(scalars.step >= 1, "steps counted from 1");
  dispatch(
      *value.device, [&] { cpu::adamw(value, gradient, moment1, moment2, scalars); },
      [&] { plan::adamw(value); });
}

double sum_of_squares(const TensorView& x) {
  if (x.empty()) return 0;
  expect(x.dtype == DType::f32, "x of type f32");
  return dispatch(
      *x.device, [&] { return cpu::sum_of_squares(x); }, [&] { return plan::sum_of_squares(x); });
}

}  // namespace switchyard::kernels
