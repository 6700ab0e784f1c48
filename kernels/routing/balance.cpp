#include "kernels/routing/balance.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/balance.hpp"
#include "kernels/cuda/routing/balance.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void balance_statistics(const TensorView& scores, const TensorView& indices,
                        std::int64_t sequence_length, const TensorView& counts,
                        const TensorView& score_sums) {
  if (scores.empty()) return;
  const std::int64_t experts = scores.cols();
  expect(scores.dtype == DType::f32, "scores of type f32");
  expect(indices.dtype == DType::i32 && indices.rows() == scores.rows(), "indices i32 [T, k]");
  expect(sequence_length > 0 && scores.rows() % sequence_length == 0, "rows of whole sequences");
  const std::int64_t sequences = scores.rows() / sequence_length;
  expect_matrix(counts, DType::i32, sequences, experts, "counts i32 [S, E]");
  expect_matrix(score_sums, DType::f32, sequences, experts, "score_sums f32 [S, E]");
  dispatch(
      *scores.device,
      [&] { cpu::balance_statistics(scores, indices, sequence_length, counts, score_sums); },
      [&] { plan::balance_statistics(scores); },
      [&] { cuda::balance_statistics(scores, indices, sequence_length, counts, score_sums); });
}

void add_auxiliary_losses(const TensorView& counts, const TensorView& score_sums,
                          const TensorView& lse, const AuxiliaryScale& scale,
                          const TensorView& sums) {
  expect_vector(sums, DType::f64, 2, "sums f64 [2]");
  expect_vector(counts, DType::i32, counts.numel(), "counts i32 [S, E]");
  expect_vector(score_sums, DType::f32, counts.numel(), "score_sums f32 [S, E]");
  expect_vector(lse, DType::f32, lse.numel(), "lse f32 [T]");
  expect(scale.top_k >= 1 && scale.sequence_length >= 1, "at least one choice and one token");
  dispatch(
      *sums.device, [&] { cpu::add_auxiliary_losses(counts, score_sums, lse, scale, sums); },
      [&] { plan::add_auxiliary_losses(counts, lse); },
      [&] { cuda::add_auxiliary_losses(counts, score_sums, lse, scale, sums); });
}

void exact_balance_statistics(const TensorView& scores, const TensorView& indices,
                              std::int64_t sequence_length, const ExactTerms& score,
                              const TensorView& counts, const TensorView& score_sums) {
  if (scores.empty()) return;
  expect(sequence_length > 0 && scores.rows() == counts.rows() * sequence_length,
         "whole sequences");
  expect_matrix(scores, DType::f32, scores.rows(), counts.cols(), "scores f32 [T, E]");
  expect_matrix(indices, DType::i32, scores.rows(), indices.cols(), "indices i32 [T, k]");
  expect_matrix(counts, DType::i32, counts.rows(), counts.cols(), "counts i32 [S, E]");
  expect_matrix(score_sums, DType::f64, counts.rows(), counts.cols(), "score_sums f64 [S, E]");
  dispatch(
      *scores.device,
      [&] {
        cpu::exact_balance_statistics(scores, indices, sequence_length, score, counts, score_sums);
      },
      [&] { plan::balance_statistics(scores); }, no_exact_sums_on_cards);
}

void add_exact_auxiliary_losses(const TensorView& counts, const TensorView& score_sums,
                                const TensorView& lse, const ExactAuxiliaryScale& scale,
                                const TensorView& sums) {
  if (lse.empty()) return;
  expect_vector(counts, DType::i32, counts.numel(), "counts i32 [S, E]");
  expect_vector(score_sums, DType::f64, counts.numel(), "score_sums f64 [S, E]");
  expect_vector(lse, DType::f32, lse.numel(), "lse f32 [T]");
  expect_vector(sums, DType::f64, 2, "sums f64 [2]");
  dispatch(
      *sums.device, [&] { cpu::add_exact_auxiliary_losses(counts, score_sums, lse, scale, sums); },
      [&] { plan::add_auxiliary_losses(counts, lse); }, no_exact_sums_on_cards);
}

void balance_slopes(const TensorView& counts, std::int64_t top_k, std::int64_t sequence_length,
                    double weight, const TensorView& slopes) {
  if (counts.empty()) return;
  expect_vector(counts, DType::i32, counts.numel(), "counts i32 [S, E]");
  expect_vector(slopes, DType::f32, counts.numel(), "slopes f32 [S, E]");
  expect(top_k >= 1 && sequence_length >= 1, "at least one choice and one token");
  dispatch(
      *slopes.device, [&] { cpu::balance_slopes(counts, top_k, sequence_length, weight, slopes); },
      [&] { plan::balance_slopes(slopes); },
      [&] { cuda::balance_slopes(counts, top_k, sequence_length, weight, slopes); });
}

void add_expert_load(const TensorView& counts, std::int64_t num_slots, const TensorView& load) {
  expect_vector(counts, DType::i32, counts.numel(), "counts i32 [places]");
  expect_vector(load, DType::i64, counts.numel() + 1, "load i64 [places + 1]");
  dispatch(
      *load.device, [&] { cpu::add_expert_load(counts, num_slots, load); },
      [&] { plan::add_expert_load(load); },
      [&] { cuda::add_expert_load(counts, num_slots, load); });
}

}  // namespace switchyard::kernels
