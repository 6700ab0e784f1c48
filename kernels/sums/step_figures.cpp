#include "kernels/sums/step_figures.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/sums/step_figures.hpp"
#include "kernels/cuda/sums/step_figures.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void write_figures(std::span<const double> values, const TensorView& to) {
  if (values.empty()) return;
  expect(std::ssize(values) <= most_written_figures, "few enough figures to go with a call");
  expect_vector(to, DType::f64, std::ssize(values), "to f64 [n]");
  dispatch(
      *to.device, [&] { cpu::write_figures(values, to); }, [&] { plan::write_figures(to); },
      [&] { cuda::write_figures(values, to); });
}

void combine_figures(const TensorView& by_rank, std::int64_t num_sums, const TensorView& combined) {
  expect_vector(by_rank, DType::f64, by_rank.numel(), "by_rank f64 [P, n]");
  expect(by_rank.rows() >= 1 && 0 <= num_sums && num_sums <= by_rank.cols(),
         "a row of a rank, of whose columns the first are added up");
  expect_vector(combined, DType::f64, by_rank.cols(), "combined f64 [n]");
  dispatch(
      *combined.device, [&] { cpu::combine_figures(by_rank, num_sums, combined); },
      [&] { plan::combine_figures(by_rank); },
      [&] { cuda::combine_figures(by_rank, num_sums, combined); });
}

void decide_update(const TensorView& figures, const UpdateRule& rule, const TensorView& outcome,
                   const TensorView& decision) {
  expect_vector(figures, DType::f64, num_update_figures, "figures f64 [7]");
  expect_vector(outcome, DType::f64, 2, "outcome f64 [2]");
  expect_vector(decision, DType::f32, 2, "decision f32 [2]");
  dispatch(
      *decision.device, [&] { cpu::decide_update(figures, rule, outcome, decision); },
      [&] { plan::decide_update(figures); },
      [&] { cuda::decide_update(figures, rule, outcome, decision); });
}

}  // namespace switchyard::kernels
