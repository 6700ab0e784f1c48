#include "kernels/routing/select_sequences.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/select_sequences.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check_sequences(const TensorView& scores, std::int64_t sequence_length) {
  expect(scores.dtype == DType::f32, "scores of type f32");
  expect(sequence_length > 0 && scores.rows() % sequence_length == 0, "whole sequences");
}

void check_indices(const TensorView& scores, const TensorView& indices) {
  expect(indices.dtype == DType::i32 && indices.rows() == scores.rows() && indices.cols() >= 1 &&
             indices.cols() <= scores.cols(),
         "indices i32 [T, k] with 1 <= k <= E");
}

}  // namespace

void sinkhorn_plan(const TensorView& logits, std::int64_t sequence_length, const TensorView& plan) {
  if (logits.empty()) return;
  check_sequences(logits, sequence_length);
  expect_matrix(plan, DType::f32, logits.rows(), logits.cols(), "plan f32 [T, E]");
  dispatch(
      *logits.device, [&] { cpu::sinkhorn_plan(logits, sequence_length, plan); },
      [&] { plan::sinkhorn_plan(logits); });
}

void select_balanced(const TensorView& scores, std::int64_t sequence_length,
                     const TensorView& indices) {
  if (scores.empty()) return;
  check_sequences(scores, sequence_length);
  check_indices(scores, indices);
  expect(scores.cols() <= 4096, "at most 4096 experts, so that sums of scores fit 64 bits");
  dispatch(
      *scores.device, [&] { cpu::select_balanced(scores, sequence_length, indices); },
      [&] { plan::select_top_k(scores, indices); });
}

void select_by_experts(const TensorView& scores, std::int64_t sequence_length, double capacity,
                       const TensorView& indices) {
  if (scores.empty()) return;
  check_sequences(scores, sequence_length);
  check_indices(scores, indices);
  expect(capacity > 0, "a capacity above 0");
  dispatch(
      *scores.device, [&] { cpu::select_by_experts(scores, sequence_length, capacity, indices); },
      [&] { plan::select_top_k(scores, indices); });
}

void drop_over_capacity(const TensorView& scores, std::int64_t sequence_length,
                        std::int64_t capacity, DropBy drop_by, const TensorView& indices) {
  if (scores.empty()) return;
  check_sequences(scores, sequence_length);
  check_indices(scores, indices);
  expect(capacity >= 1, "room for a token");
  dispatch(
      *scores.device,
      [&] { cpu::drop_over_capacity(scores, sequence_length, capacity, drop_by, indices); },
      [&] { plan::select_top_k(scores, indices); });
}

}  // namespace switchyard::kernels
