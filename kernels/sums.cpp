#include "kernels/sums.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/sums.hpp"
#include "kernels/cuda/sums.hpp"
#include "kernels/cuda/sums_sizes.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

// A plan for a card reserves what the card will.
void reserve_scratch(Device& plan, std::span<const TensorView> tensors) {
  if (plan.target().device == DeviceKind::cuda)
    plan.kernel_scratch(cuda::sums_scratch_bytes(tensors));
}

}  // namespace

void add_sum(const TensorView& values, double divisor, const TensorView& into) {
  if (values.empty()) return;
  expect(values.dtype == DType::f32, "values of type f32");
  expect_vector(into, DType::f64, 1, "into f64 [1]");
  dispatch(
      *into.device, [&] { cpu::add_sum(values, divisor, into); },
      [&] {
        reserve_scratch(*into.device, {&values, 1});
        plan::add_sum(values);
      },
      [&] { cuda::add_sum(values, divisor, into); });
}

void add_sum_of_squares(std::span<const TensorView> tensors, const TensorView& into) {
  for (const TensorView& x : tensors)
    expect(x.empty() || x.dtype == DType::f32, "tensors of type f32");
  expect_vector(into, DType::f64, 1, "into f64 [1]");
  dispatch(
      *into.device, [&] { cpu::add_sum_of_squares(tensors, into); },
      [&] {
        reserve_scratch(*into.device, tensors);
        plan::add_sum_of_squares(tensors);
      },
      [&] { cuda::add_sum_of_squares(tensors, into); });
}

void add_quotients(const TensorView& values, double divisor, const TensorView& into) {
  if (values.empty()) return;
  expect_vector(values, DType::f64, values.numel(), "values f64 [n]");
  expect_vector(into, DType::f64, values.numel(), "into f64 [n]");
  dispatch(
      *into.device, [&] { cpu::add_quotients(values, divisor, into); },
      [&] { plan::add_quotients(values); }, [&] { cuda::add_quotients(values, divisor, into); });
}

}  // namespace switchyard::kernels
