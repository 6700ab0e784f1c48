#include "kernels/sums/sums.hpp"

#include <cmath>

#include "kernels/check.hpp"
#include "kernels/cpu/sums/sums.hpp"
#include "kernels/cuda/sums/sums.hpp"
#include "kernels/cuda/sums/sums_sizes.hpp"
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

double exact_quantum(double most, double num_terms) {
  expect(most > 0 && num_terms > 0, "terms that are larger than 0");
  return std::exp2(std::ceil(std::log2(most)) + std::ceil(std::log2(num_terms)) - 52);
}

void add_exact_sum(const TensorView& values, const ExactTerms& terms, const TensorView& into) {
  if (values.empty()) return;
  expect(values.dtype == DType::f32, "values of type f32");
  expect_vector(into, DType::f64, 1, "into f64 [1]");
  dispatch(
      *into.device, [&] { cpu::add_exact_sum(values, terms, into); },
      [&] { plan::add_sum(values); }, no_exact_sums_on_cards);
}

// The first quantum leaves room up to most_square; the rest of a term is at most half of the
// quantum before.
SquareParts::SquareParts(double num_elements)
    : quanta{0x1p-12, exact_quantum(0x1p-13, num_elements), 0} {
  quanta[2] = exact_quantum(quanta[1] / 2, num_elements);
}

void add_exact_sum_of_squares(std::span<const TensorView> tensors, int fraction_bits,
                              const SquareParts& parts, const TensorView& into) {
  for (const TensorView& x : tensors)
    expect(x.empty() || (x.dtype == DType::i64 && x.is_contiguous()),
           "contiguous tensors of type i64");
  expect_vector(into, DType::f64, 3, "into f64 [3]");
  dispatch(
      *into.device, [&] { cpu::add_exact_sum_of_squares(tensors, fraction_bits, parts, into); },
      [&] { plan::add_sum_of_squares(tensors); }, no_exact_sums_on_cards);
}

void count_nonzero(const TensorView& numbers, const TensorView& into) {
  expect_vector(numbers, DType::i32, numbers.numel(), "numbers i32 [n]");
  expect_vector(into, DType::f64, 1, "into f64 [1]");
  dispatch(
      *into.device, [&] { cpu::count_nonzero(numbers, into); }, [&] { plan::add_sum(numbers); },
      no_exact_sums_on_cards);
}

}  // namespace switchyard::kernels
