#include "kernels/attention.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/attention.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/attention.hpp"

namespace switchyard::kernels {

namespace {

void check_shape(const AttentionShape& s) {
  expect(s.num_kv_heads > 0 && s.num_heads > 0 && s.num_heads % s.num_kv_heads == 0,
         "a number of heads that the kv heads divide");
  expect(s.head_dim > 0 && s.scale > 0, "a positive head_dim and scale");
  expect(s.query_offset >= 0, "queries that see at least the first key");
}

void check_queries(const AttentionShape& s, const TensorView& view, DType dtype) {
  expect_matrix(view, dtype, s.num_sequences * s.query_length, s.num_heads * s.head_dim,
                "queries and outputs: [sequences * query_length, heads * head_dim] of one type");
}

void check_keys(const AttentionShape& s, const TensorView& view, DType dtype) {
  expect_matrix(view, dtype, s.num_sequences * s.key_length, s.num_kv_heads * s.head_dim,
                "keys and values: [sequences * key_length, kv heads * head_dim] of one type");
}

void check_lse(const AttentionShape& s, const TensorView& lse) {
  expect_matrix(lse, DType::f32, s.num_sequences * s.query_length, s.num_heads,
                "lse: f32 [sequences * query_length, heads]");
}

bool is_empty(const AttentionShape& s) {
  return s.num_sequences == 0 || s.query_length == 0;
}

void check_workspace(const AttentionShape& s, DType dtype, const TensorView& workspace) {
  expect(workspace.dtype == DType::u8 && workspace.is_contiguous() &&
             workspace.num_bytes() >= attention_workspace_bytes(s, dtype, 1),
         "a workspace of attention_workspace_bytes");
}

}  // namespace

void attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                       const TensorView& v, const TensorView& out, const TensorView& lse,
                       const TensorView& workspace) {
  check_shape(shape);
  expect(is_float(q.dtype), "f32 or bf16");
  for (const TensorView* view : {&q, &out}) check_queries(shape, *view, q.dtype);
  for (const TensorView* view : {&k, &v}) check_keys(shape, *view, q.dtype);
  check_lse(shape, lse);
  if (is_empty(shape)) return;
  expect(shape.key_length > 0, "at least one key");
  check_workspace(shape, q.dtype, workspace);
  dispatch(
      *q.device, [&] { cpu::attention_forward(shape, q, k, v, out, lse, workspace); },
      [&] { plan::attention_forward(shape, q, k, v, out, lse); });
}

void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const TensorView& out, const TensorView& lse,
                        const TensorView& dout, const TensorView& dq, const TensorView& dk,
                        const TensorView& dv, const TensorView& workspace) {
  check_shape(shape);
  expect(is_float(q.dtype), "f32 or bf16");
  for (const TensorView* view : {&q, &out, &dout, &dq}) check_queries(shape, *view, q.dtype);
  for (const TensorView* view : {&k, &v, &dk, &dv}) check_keys(shape, *view, q.dtype);
  check_lse(shape, lse);
  if (is_empty(shape)) return;
  expect(shape.key_length > 0, "at least one key");
  check_workspace(shape, q.dtype, workspace);
  const AttentionGradients gradients{dq, dk, dv};
  dispatch(
      *q.device,
      [&] { cpu::attention_backward(shape, q, k, v, out, lse, dout, gradients, workspace); },
      [&] { plan::attention_backward(shape, q, k, v, out, lse, dout, gradients); });
}

std::int64_t attention_workspace_bytes(const AttentionShape& shape, DType dtype, int num_threads) {
  check_shape(shape);
  return cpu::attention_workspace_bytes_of_thread(shape, dtype) * num_threads;
}

}  // namespace switchyard::kernels
