#include "kernels/attention/attention.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/attention/attention.hpp"
#include "kernels/cuda/attention/attention.hpp"
#include "kernels/cuda/attention/attention_sizes.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/attention.hpp"

namespace switchyard::kernels {

namespace {

void check_shape(const AttentionShape& s) {
  expect(s.num_kv_heads > 0 && s.num_heads > 0 && s.num_heads % s.num_kv_heads == 0,
         "a number of heads that the kv heads divide");
  expect(s.head_dim > 0 && s.scale > 0, "a positive head_dim and scale");
  expect(s.slopes.empty() || std::ssize(s.slopes) == s.num_heads, "a slope of each head, or none");
  const TensorView& bias = s.bias.values;
  const std::int64_t num_distances = std::ssize(s.bias.parameters);
  if (!bias.empty())
    expect_matrix(bias, DType::f32, s.num_heads,
                  bias.cols() == 2 * num_distances ? bias.cols() : num_distances,
                  "bias: f32 [heads, distances], or twice as wide with slopes");
  const TensorView& of_distances = s.distance_keys;
  expect(of_distances.device == nullptr ||
             has_size(of_distances, s.num_distances, s.num_kv_heads * s.head_dim),
         "keys of distances: [distances, kv heads * head_dim]");
  expect(s.held_queries.empty() || s.held_queries.back().end() <= s.query_length,
         "held queries below query_length");
  expect(s.held_keys.empty() || s.held_keys.back().end() <= s.key_length,
         "held keys below key_length");
}

// The card's kernels cut rows and keys into blocks from the first that is there.
void expect_for_card(const AttentionShape& s, const KeyRanges& ranges) {
  expect(s.held_queries.empty() && s.held_keys.empty(),
         "whole sequences: attention of a share of them is for the CPU");
  expect(s.slopes.empty() && s.bias.values.empty() && s.num_distances == 0,
         "no slopes and bias: distances are for the CPU");
  expect(ranges.num_sets == 1 && ranges.query_rows.empty() && ranges.key_rows.empty(),
         "one set of ranges of rows: other patterns are for the CPU");
}

std::int64_t num_query_rows(const AttentionShape& s) {
  return s.num_sequences * s.num_held_queries();
}

void check_queries(const AttentionShape& s, std::int64_t rows, const TensorView& view,
                   DType dtype) {
  expect_matrix(view, dtype, rows, s.num_heads * s.head_dim,
                "queries and outputs: [sequences * queries held, heads * head_dim] of one type");
}

void check_keys(const AttentionShape& s, const TensorView& view, DType dtype) {
  expect_matrix(view, dtype, s.num_sequences * s.num_held_keys(), s.num_kv_heads * s.head_dim,
                "keys and values: [sequences * keys held, kv heads * head_dim] of one type");
}

// Of a result: as the operands, or f32; f32 where it is added to.
DType result_type(const TensorView& result, DType dtype, Merge merge) {
  return merge == Merge::with_before || result.dtype == DType::f32 ? DType::f32 : dtype;
}

void check_row_values(const AttentionShape& s, std::int64_t rows, const TensorView& values) {
  expect_matrix(values, DType::f32, rows, s.num_heads,
                "lse and delta: f32 [sequences * queries held, heads]");
}

void check_ranges(const AttentionShape& s, const KeyRanges& ranges) {
  const std::int64_t rows = ranges.num_sets * s.num_sequences * s.query_length;
  expect_vector(ranges.first, DType::i32, rows,
                "first keys: i32 [sets * sequences * query_length]");
  expect_vector(ranges.end, DType::i32, rows, "end keys: i32 [sets * sequences * query_length]");
  if (!ranges.query_rows.empty())
    expect_vector(ranges.query_rows, DType::i32, s.query_length, "query rows: i32 [query_length]");
  if (!ranges.key_rows.empty())
    expect_vector(ranges.key_rows, DType::i32, s.key_length, "key rows: i32 [key_length]");
}

bool is_empty(const AttentionShape& s) {
  return s.num_sequences == 0 || (s.query_length == 0 && s.key_length == 0);
}

// Enough for one thread, where threads have scratch of their own.
void check_workspace(const AttentionShape& s, DType dtype, const Device& device,
                     const TensorView& workspace) {
  const PlanTarget least{.device = device.target().device, .num_threads = 1};
  expect(workspace.dtype == DType::u8 && workspace.is_contiguous() &&
             workspace.num_bytes() >= attention_workspace_bytes(s, dtype, least),
         "a workspace of attention_workspace_bytes");
}

}  // namespace

void attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                       const TensorView& v, const KeyRanges& ranges, const TensorView& out,
                       const TensorView& lse, Merge merge, const TensorView& workspace,
                       const Poll& poll) {
  check_shape(shape);
  expect(is_float(q.dtype), "q of type f32 or bf16");
  check_queries(shape, num_query_rows(shape), q, q.dtype);
  check_queries(shape, num_query_rows(shape), out, result_type(out, q.dtype, merge));
  for (const TensorView* view : {&k, &v}) check_keys(shape, *view, q.dtype);
  check_row_values(shape, num_query_rows(shape), lse);
  if (is_empty(shape) || shape.query_length == 0) return;
  check_ranges(shape, ranges);
  check_workspace(shape, q.dtype, *q.device, workspace);
  dispatch(
      *q.device,
      [&] { cpu::attention_forward(shape, q, k, v, ranges, out, lse, merge, workspace, poll); },
      [&] { plan::attention_forward(shape, q, k, v, ranges, out, lse); },
      [&] {
        expect_for_card(shape, ranges);
        cuda::attention_forward(shape, q, k, v, ranges, out, lse, merge, workspace, poll);
      });
}

void attention_delta(const TensorView& out, const TensorView& dout, std::int64_t head_dim,
                     const TensorView& delta) {
  expect(is_float(out.dtype) && is_float(dout.dtype), "out and dout of type f32 or bf16");
  expect(has_size(dout, out.rows(), out.cols()), "dout like out");
  expect(delta.dtype == DType::f32 && delta.rows() == out.rows() &&
             delta.cols() * head_dim == out.cols(),
         "delta: f32 [rows, heads]");
  if (out.empty()) return;
  dispatch(
      *out.device, [&] { cpu::attention_delta(out, dout, head_dim, delta); },
      [&] { plan::attention_delta(out, dout, delta); },
      [&] { cuda::attention_delta(out, dout, head_dim, delta); });
}

void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const KeyRanges& ranges, const TensorView& lse,
                        const TensorView& delta, const TensorView& dout,
                        const AttentionGradients& gradients, const TensorView& workspace,
                        const Poll& poll) {
  check_shape(shape);
  expect(is_float(q.dtype), "q of type f32 or bf16");
  const std::int64_t rows = num_query_rows(shape);
  for (const TensorView* view : {&q, &dout}) check_queries(shape, rows, *view, q.dtype);
  for (const TensorView* view : {&k, &v}) check_keys(shape, *view, q.dtype);
  for (const TensorView* view : {&lse, &delta}) check_row_values(shape, rows, *view);
  expect(gradients.has_dq() || gradients.has_dkv(), "a gradient to be computed");
  if (gradients.has_dq())
    check_queries(shape, num_query_rows(shape), gradients.dq,
                  result_type(gradients.dq, q.dtype, gradients.dq_merge));
  if (gradients.has_dbias())
    expect_matrix(gradients.dbias, DType::f32, num_query_rows(shape),
                  shape.num_heads * shape.bias.num_parameters,
                  "dbias: f32 [sequences * queries held, heads * parameters]");
  expect(gradients.has_dbias() == (gradients.has_dq() && !shape.bias.values.empty()),
         "dbias beside dq where there is a bias");
  if (shape.num_distances > 0) {
    expect(gradients.has_dq() && gradients.has_dkv(), "all gradients beside keys of distances");
    check_queries(shape, num_query_rows(shape), gradients.dp,
                  result_type(gradients.dp, q.dtype, gradients.dq_merge));
    expect_matrix(gradients.dr, DType::f32, shape.num_distances, k.cols(),
                  "dr: f32 [distances, kv heads * head_dim]");
  }
  if (gradients.has_dkv())
    for (const TensorView* view : {&gradients.dk, &gradients.dv})
      check_keys(shape, *view, result_type(*view, q.dtype, gradients.dkv_merge));
  if (is_empty(shape)) return;
  check_ranges(shape, ranges);
  check_workspace(shape, q.dtype, *q.device, workspace);
  dispatch(
      *q.device,
      [&] {
        cpu::attention_backward(shape, q, k, v, ranges, lse, delta, dout, gradients, workspace,
                                poll);
      },
      [&] { plan::attention_backward(shape, q, k, v, ranges, lse, delta, dout, gradients); },
      [&] {
        expect_for_card(shape, ranges);
        expect(gradients.has_dq() && gradients.has_dkv(), "all gradients, on a card");
        cuda::attention_backward(shape, q, k, v, ranges, lse, delta, dout, gradients, workspace,
                                 poll);
      });
}

std::int64_t attention_workspace_bytes(const AttentionShape& shape, DType dtype,
                                       const PlanTarget& target) {
  check_shape(shape);
  if (target.device == DeviceKind::cuda) return cuda::attention_workspace_bytes(shape, dtype);
  const int threads = target.num_threads > 0 ? target.num_threads : num_threads();
  return cpu::attention_workspace_bytes(shape, dtype, threads);
}

}  // namespace switchyard::kernels
