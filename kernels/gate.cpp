#include "kernels/gate.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/gate.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check_choices(const TensorView& indices, std::int64_t tokens, std::int64_t experts) {
  expect(indices.dtype == DType::i32 && indices.rows() == tokens && indices.cols() >= 1 &&
             indices.cols() <= experts,
         "indices i32 [T, k] with 1 <= k <= E");
}

}  // namespace

void gate_forward(const TensorView& logits, bool renormalize, const TensorView& probs,
                  const TensorView& lse, const TensorView& indices, const TensorView& weights) {
  if (logits.empty()) return;
  const std::int64_t tokens = logits.rows();
  const std::int64_t experts = logits.cols();
  expect(logits.dtype == DType::f32, "logits of type f32");
  check_choices(indices, tokens, experts);
  expect_matrix(probs, DType::f32, tokens, experts, "probs f32 [T, E]");
  expect_vector(lse, DType::f32, tokens, "lse f32 [T]");
  expect_matrix(weights, DType::f32, tokens, indices.cols(), "weights f32 [T, k]");
  dispatch(
      *logits.device, [&] { cpu::gate_forward(logits, renormalize, probs, lse, indices, weights); },
      [&] { plan::gate_forward(logits); });
}

void gate_backward(const TensorView& dweights, const TensorView& probs, const TensorView& lse,
                   const TensorView& indices, bool renormalize, const TensorView& prob_slopes,
                   float z_slope, const TensorView& dlogits) {
  if (probs.empty()) return;
  const std::int64_t tokens = probs.rows();
  const std::int64_t experts = probs.cols();
  expect(probs.dtype == DType::f32, "probs of type f32");
  check_choices(indices, tokens, experts);
  expect_matrix(dweights, DType::f32, tokens, indices.cols(), "dweights f32 [T, k]");
  expect_vector(lse, DType::f32, tokens, "lse f32 [T]");
  expect(prob_slopes.dtype == DType::f32 && prob_slopes.cols() == experts &&
             prob_slopes.rows() > 0 && tokens % prob_slopes.rows() == 0,
         "prob_slopes f32 [S, E] with S dividing T");
  expect_matrix(dlogits, DType::f32, tokens, experts, "dlogits f32 [T, E]");
  dispatch(
      *probs.device,
      [&] {
        cpu::gate_backward(dweights, probs, lse, indices, renormalize, prob_slopes, z_slope,
                           dlogits);
      },
      [&] { plan::gate_backward(probs); });
}

void gate_statistics(const TensorView& probs, const TensorView& indices,
                     std::int64_t sequence_length, const TensorView& counts,
                     const TensorView& prob_sums) {
  if (probs.empty()) return;
  const std::int64_t experts = probs.cols();
  expect(probs.dtype == DType::f32, "probs of type f32");
  check_choices(indices, probs.rows(), experts);
  expect(sequence_length > 0 && probs.rows() % sequence_length == 0, "whole sequences");
  const std::int64_t sequences = probs.rows() / sequence_length;
  expect_matrix(counts, DType::i32, sequences, experts, "counts i32 [S, E]");
  expect_matrix(prob_sums, DType::f32, sequences, experts, "prob_sums f32 [S, E]");
  dispatch(
      *probs.device,
      [&] { cpu::gate_statistics(probs, indices, sequence_length, counts, prob_sums); },
      [&] { plan::gate_statistics(probs); });
}

}  // namespace switchyard::kernels
