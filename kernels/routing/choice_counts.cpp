#include "kernels/routing/choice_counts.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/choice_counts.hpp"
#include "kernels/cuda/routing/choice_counts.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void sum_counts(const TensorView& counts, const TensorView& totals) {
  expect_vector(counts, DType::i32, counts.numel(), "counts i32 [S, E]");
  expect_vector(totals, DType::i64, counts.cols(), "totals i64 [E]");
  dispatch(
      *totals.device, [&] { cpu::sum_counts(counts, totals); },
      [&] { plan::sum_counts(counts, totals); }, [&] { cuda::sum_counts(counts, totals); });
}

void add_counts(const TensorView& counts, const TensorView& into) {
  if (counts.empty()) return;
  expect_vector(counts, DType::i64, counts.numel(), "counts i64 [n]");
  expect_vector(into, DType::i64, counts.numel(), "into i64 [n]");
  dispatch(
      *into.device, [&] { cpu::add_counts(counts, into); }, [&] { plan::add_counts(counts); },
      [&] { cuda::add_counts(counts, into); });
}

void spread_counts(const TensorView& totals, const TensorView& counts) {
  if (counts.empty()) return;
  expect_vector(totals, DType::i64, counts.cols(), "totals i64 [E]");
  expect_vector(counts, DType::i32, counts.numel(), "counts i32 [S, E]");
  dispatch(
      *counts.device, [&] { cpu::spread_counts(totals, counts); },
      [&] { plan::spread_counts(counts); }, [&] { cuda::spread_counts(totals, counts); });
}

void move_selection_bias(const TensorView& counts, const TensorView& decision, float rate,
                         const TensorView& bias) {
  expect_vector(counts, DType::i64, counts.numel(), "counts i64 [E]");
  expect_vector(decision, DType::f32, 2, "decision f32 [2]");
  expect_vector(bias, DType::f32, counts.numel(), "bias f32 [E]");
  dispatch(
      *bias.device, [&] { cpu::move_selection_bias(counts, decision, rate, bias); },
      [&] { plan::move_selection_bias(bias); },
      [&] { cuda::move_selection_bias(counts, decision, rate, bias); });
}

}  // namespace switchyard::kernels
