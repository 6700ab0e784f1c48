#include "kernels/routing/noisy_load.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/noisy_load.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check_rows(std::int64_t num_tokens, const TensorView& by_sequence, DType dtype) {
  expect(
      by_sequence.dtype == dtype && by_sequence.rows() > 0 && num_tokens % by_sequence.rows() == 0,
      "rows [S, E] of whole sequences");
}

void check_choice(const NoisyChoice& choice) {
  const std::int64_t num_tokens = choice.logits.rows(), experts = choice.logits.cols();
  expect(choice.logits.dtype == DType::f32, "logits f32 [T, E]");
  expect_matrix(choice.raw, DType::f32, num_tokens, experts, "raw f32 [T, E]");
  expect(choice.site.copies == 1 && choice.site.sequence_length > 0,
         "a site with one copy of each token");
  expect(choice.top_k >= 1 && choice.top_k <= experts, "at most as many choices as experts");
}

}  // namespace

void sum_importance(const TensorView& weights, const TensorView& indices, double scale,
                    const ExactTerms& rounding, const TensorView& sums) {
  if (weights.empty()) return;
  check_rows(weights.rows(), sums, DType::f64);
  expect(weights.dtype == DType::f32, "weights f32 [T, k]");
  expect_matrix(indices, DType::i32, weights.rows(), weights.cols(), "indices i32 [T, k]");
  dispatch(
      *sums.device, [&] { cpu::sum_importance(weights, indices, scale, rounding, sums); },
      [&] { plan::sum_importance(weights, sums); });
}

void sum_noisy_load(const NoisyChoice& choice, const ExactTerms& rounding, const TensorView& sums) {
  if (choice.logits.empty()) return;
  check_choice(choice);
  check_rows(choice.logits.rows(), sums, DType::f64);
  dispatch(
      *sums.device, [&] { cpu::sum_noisy_load(choice, rounding, sums); },
      [&] { plan::noisy_load(choice.logits); });
}

void counts_as_load(const TensorView& counts, const TensorView& sums) {
  if (sums.empty()) return;
  expect_vector(counts, DType::i32, sums.numel(), "counts i32 [S, E]");
  expect_vector(sums, DType::f64, counts.numel(), "sums f64 [S, E]");
  dispatch(
      *sums.device, [&] { cpu::counts_as_load(counts, sums); },
      [&] { plan::counts_as_load(counts, sums); });
}

void pool_rows(const TensorView& sums) {
  if (sums.empty()) return;
  expect(sums.dtype == DType::f64, "sums f64 [S, E]");
  dispatch(
      *sums.device, [&] { cpu::pool_rows(sums); }, [&] { plan::pool_rows(sums); });
}

void spread_first_row(const TensorView& sums) {
  if (sums.empty()) return;
  expect(sums.dtype == DType::f64, "sums f64 [S, E]");
  dispatch(
      *sums.device, [&] { cpu::spread_first_row(sums); }, [&] { plan::spread_first_row(sums); });
}

void add_variation(const TensorView& sums, double factor, const ExactTerms& rounding,
                   const TensorView& losses) {
  expect(sums.dtype == DType::f64, "sums f64 [S, E]");
  expect_vector(losses, DType::f64, 2, "losses f64 [2]");
  dispatch(
      *losses.device, [&] { cpu::add_variation(sums, factor, rounding, losses); },
      [&] { plan::add_variation(sums); });
}

void variation_slopes(const TensorView& sums, double weight, const TensorView& slopes) {
  if (sums.empty()) return;
  expect(sums.dtype == DType::f64, "sums f64 [S, E]");
  expect_matrix(slopes, DType::f32, sums.rows(), sums.cols(), "slopes f32 [S, E]");
  dispatch(
      *slopes.device, [&] { cpu::variation_slopes(sums, weight, slopes); },
      [&] { plan::variation_slopes(slopes); });
}

void add_importance_gradient(const TensorView& slopes, const TensorView& indices, double scale,
                             const TensorView& dweights) {
  if (dweights.empty()) return;
  check_rows(dweights.rows(), slopes, DType::f32);
  expect(dweights.dtype == DType::f32, "dweights f32 [T, k]");
  expect_matrix(indices, DType::i32, dweights.rows(), dweights.cols(), "indices i32 [T, k]");
  dispatch(
      *dweights.device, [&] { cpu::add_importance_gradient(slopes, indices, scale, dweights); },
      [&] { plan::add_importance_gradient(dweights); });
}

void add_load_gradient(const NoisyChoice& choice, const TensorView& slopes,
                       const TensorView& dlogits) {
  if (dlogits.empty()) return;
  check_choice(choice);
  check_rows(dlogits.rows(), slopes, DType::f32);
  expect_matrix(dlogits, DType::f32, choice.logits.rows(), choice.logits.cols(),
                "dlogits f32 [T, E]");
  dispatch(
      *dlogits.device, [&] { cpu::add_load_gradient(choice, slopes, dlogits); },
      [&] { plan::noisy_load_backward(dlogits); });
}

void add_load_noise_gradient(const NoisyChoice& choice, const TensorView& slopes,
                             const TensorView& draw) {
  if (draw.empty()) return;
  check_choice(choice);
  check_rows(draw.rows(), slopes, DType::f32);
  expect_matrix(draw, DType::f32, choice.logits.rows(), choice.logits.cols(), "draw f32 [T, E]");
  dispatch(
      *draw.device, [&] { cpu::add_load_noise_gradient(choice, slopes, draw); },
      [&] { plan::noisy_load_backward(draw); });
}

}  // namespace switchyard::kernels
