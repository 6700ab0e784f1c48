#include "kernels/attention/chosen_attention.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/attention/chosen_attention.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/attention.hpp"

namespace switchyard::kernels {

namespace {

void check_rows(const AttentionShape& s, const TensorView& view, DType dtype) {
  expect_matrix(view, dtype, s.num_sequences * s.query_length, s.num_heads * s.head_dim,
                "queries, outputs and their gradients: [sequences * queries, heads * head_dim]");
}

void check_keys(const AttentionShape& s, const TensorView& view, DType dtype) {
  expect_matrix(view, dtype, s.num_sequences * s.key_length, s.num_kv_heads * s.head_dim,
                "keys, values and their gradients: [sequences * keys, kv heads * head_dim]");
}

void check_operands(const AttentionShape& s, const TensorView& q, const TensorView& k,
                    const TensorView& v, const ChosenBlocks& blocks, const TensorView& lse,
                    const TensorView& workspace, bool has_backward) {
  expect(s.num_kv_heads > 0 && s.num_heads % s.num_kv_heads == 0 && s.head_dim > 0 && s.scale > 0,
         "heads that the kv heads divide, a positive head_dim and scale");
  expect(is_float(q.dtype), "q of type f32 or bf16");
  check_rows(s, q, q.dtype);
  for (const TensorView* view : {&k, &v}) check_keys(s, *view, q.dtype);
  const std::int64_t choices = blocks.chosen.cols() / s.num_kv_heads;
  expect(blocks.block > 0 && choices > 0, "blocks, and a choice of each query");
  expect_matrix(blocks.chosen, DType::i32, q.rows(), s.num_kv_heads * choices,
                "choices: i32 [sequences * queries, kv heads * choices]");
  expect_matrix(lse, DType::f32, q.rows(), s.num_heads, "lse: f32 [sequences * queries, heads]");
  const PlanTarget least{.device = q.device->target().device, .num_threads = 1};
  expect(workspace.dtype == DType::u8 && workspace.is_contiguous() &&
             workspace.num_bytes() >= chosen_attention_workspace_bytes(
                                          s, blocks.block, choices, q.dtype, has_backward, least),
         "a workspace of chosen_attention_workspace_bytes");
}

}  // namespace

void chosen_attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                              const TensorView& v, const ChosenBlocks& blocks,
                              const TensorView& out, const TensorView& lse, Merge merge,
                              const TensorView& workspace, const Poll& poll) {
  if (q.empty()) return;
  check_operands(shape, q, k, v, blocks, lse, workspace, false);
  check_rows(shape, out, DType::f32);
  dispatch(
      *q.device,
      [&] {
        cpu::chosen_attention_forward(shape, q, k, v, blocks, out, lse, merge, workspace, poll);
      },
      [&] {
        plan::attention_forward(shape, q, k, v,
                                {.first = {}, .end = {}, .num_pairs = blocks.num_pairs}, out, lse);
      });
}

void chosen_attention_backward(const AttentionShape& shape, const TensorView& q,
                               const TensorView& k, const TensorView& v, const ChosenBlocks& blocks,
                               const TensorView& lse, const TensorView& delta,
                               const TensorView& dout, const TensorView& dq, const TensorView& dk,
                               const TensorView& dv, const TensorView& workspace,
                               const Poll& poll) {
  if (q.empty()) return;
  check_operands(shape, q, k, v, blocks, lse, workspace, true);
  check_rows(shape, dout, q.dtype);
  check_rows(shape, dq, DType::f32);
  for (const TensorView* view : {&dk, &dv}) check_keys(shape, *view, DType::f32);
  expect_matrix(delta, DType::f32, q.rows(), shape.num_heads, "delta like lse");
  const AttentionGradients gradients{.dq = dq, .dk = dk, .dv = dv};
  dispatch(
      *q.device,
      [&] {
        cpu::chosen_attention_backward(shape, q, k, v, blocks, lse, delta, dout, dq, dk, dv,
                                       workspace, poll);
      },
      [&] {
        plan::attention_backward(shape, q, k, v,
                                 {.first = {}, .end = {}, .num_pairs = blocks.num_pairs}, lse,
                                 delta, dout, gradients);
      });
}

std::int64_t chosen_attention_workspace_bytes(const AttentionShape& shape, std::int64_t block,
                                              std::int64_t num_choices, DType dtype,
                                              bool has_backward, const PlanTarget& target) {
  const int threads = target.num_threads > 0 ? target.num_threads : num_threads();
  return cpu::chosen_attention_workspace_bytes(shape, block, num_choices, dtype, has_backward,
                                               threads);
}

}  // namespace switchyard::kernels
