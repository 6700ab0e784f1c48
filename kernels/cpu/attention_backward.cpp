// The gradients of attention. One thread computes a kv head of a sequence from its first key block
// to its last, so every sum has one fixed order.
#include "kernels/cpu/attention_backward.hpp"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/attention_output.hpp"

namespace switchyard::kernels::cpu {

namespace {

// One thread's scratch. Q query blocks of R rows each, N keys of a key block, D head_dim.
struct BackwardScratch {
  BackwardScratch(Carver& carver, const AttentionBlocks& b) {
    const std::int64_t all_rows = b.num_query_blocks() * b.max_rows();
    const std::int64_t keys = b.max_keys();
    const std::int64_t scores_numel = b.max_rows() * keys;
    q = carver.take<std::byte>(b.operand_bytes(all_rows * b.head_dim()));
    dout = carver.take<std::byte>(b.operand_bytes(all_rows * b.head_dim()));
    dq = carver.take<float>(all_rows * b.head_dim());
    lse = carver.take<float>(all_rows);
    delta = carver.take<float>(all_rows);
    k = carver.take<std::byte>(b.operand_bytes(keys * b.head_dim()));
    v = carver.take<std::byte>(b.operand_bytes(keys * b.head_dim()));
    dk = carver.take<float>(keys * b.head_dim());
    dv = carver.take<float>(keys * b.head_dim());
    scores = carver.take<float>(scores_numel);
    dprobs = carver.take<float>(scores_numel);
    probs = carver.take<std::byte>(b.operand_bytes(scores_numel));
    dscores = carver.take<std::byte>(b.operand_bytes(scores_numel));
    from = carver.take<std::int32_t>(b.max_rows());
    to = carver.take<std::int32_t>(b.max_rows());
  }
  std::byte* q;        // [Q, R, D]
  std::byte* dout;     // [Q, R, D]
  float* dq;           // [Q, R, D]
  float* lse;          // [Q, R], to base 2
  float* delta;        // [Q, R], rowsum(dout * out)
  std::byte* k;        // [N, D]
  std::byte* v;        // [N, D]
  float* dk;           // [N, D]
  float* dv;           // [N, D]
  float* scores;       // [R, N]
  float* dprobs;       // [R, N]
  std::byte* probs;    // [R, N]
  std::byte* dscores;  // [R, N]
  std::int32_t* from;  // [R], visible keys of the block
  std::int32_t* to;    // [R]
};

struct BackwardTask {
  const AttentionBlocks& blocks;
  const TensorView& q;
  const TensorView& k;
  const TensorView& v;
  const TensorView& lse;
  const TensorView& delta;
  const TensorView& dout;
  const AttentionGradients& gradients;
  const Poll& poll;  // empty for all threads but the calling one
};

std::byte* bytes_of(float* values) {
  return reinterpret_cast<std::byte*>(values);
}

// Stacks what every key block reads of the queries, once.
void prepare_queries(const BackwardTask& task, const HeadGroup& g, std::int64_t block,
                     const BackwardScratch& s) {
  const AttentionBlocks& b = task.blocks;
  const Range queries = b.query_block(block);
  const std::int64_t first_row = block * b.max_rows();
  const std::int64_t first_element = first_row * b.head_dim();
  b.gather_queries(task.q, g, queries, s.q + b.operand_bytes(first_element));
  b.gather_queries(task.dout, g, queries, s.dout + b.operand_bytes(first_element));
  const std::int64_t rows = b.padded_rows(queries.count);
  std::fill_n(s.dq + first_element, rows * b.head_dim(), 0.0f);
  std::fill_n(s.lse + first_row, rows, 0.0f);
  std::fill_n(s.delta + first_row, rows, 0.0f);
  std::int64_t row = first_row;
  for (std::int64_t h = 0; h < b.group(); ++h)
    for (std::int64_t i = queries.begin; i < queries.end(); ++i, ++row) {
      s.lse[row] = *b.value_at(task.lse, g, h, i) * std::numbers::log2e_v<float>;
      s.delta[row] = *b.value_at(task.delta, g, h, i);
    }
}

// A row that saw nothing altogether gives no gradient.
void hide_rows_without_keys(const float* lse, std::int64_t rows, const BackwardScratch& s) {
  for (std::int64_t r = 0; r < rows; ++r)
    if (std::isinf(lse[r]) && lse[r] < 0) s.to[r] = s.from[r];
}

// dv += P^T dout, dk += dS^T q, dq += dS k for one query block and one key block.
void add_block(const BackwardTask& task, const HeadGroup& g, std::int64_t block, const Range& keys,
               const BackwardScratch& s) {
  const AttentionBlocks& b = task.blocks;
  const Range queries = b.query_block(block);
  const std::int64_t rows = b.padded_rows(queries.count);
  const std::int64_t cols = AttentionBlocks::padded_keys(keys.count);
  const std::int64_t dim = b.head_dim();
  const std::int64_t first_row = block * b.max_rows();
  const std::byte* q = s.q + b.operand_bytes(first_row * dim);
  const std::byte* dout = s.dout + b.operand_bytes(first_row * dim);
  const std::int64_t first_key = keys.begin % b.max_keys() * dim;  // in the arrays of the block
  const std::byte* k = s.k + b.operand_bytes(first_key);
  const std::byte* v = s.v + b.operand_bytes(first_key);

  const Product rows_by_keys{.m = rows,
                             .n = cols,
                             .k = dim,
                             .operands = b.operands(),
                             .result = DType::f32,
                             .lda = dim,
                             .ldb = dim,
                             .ldc = cols,
                             .b_transposed = true};
  multiply(rows_by_keys, q, k, bytes_of(s.scores));
  multiply(rows_by_keys, dout, v, bytes_of(s.dprobs));
  b.find_visible(g.sequence, queries, keys, s.from, s.to);
  hide_rows_without_keys(s.lse + first_row, rows, s);
  softmax_block_backward({.scores = s.scores,
                          .rows = rows,
                          .cols = cols,
                          .from = s.from,
                          .to = s.to,
                          .scale = b.scale_log2(),
                          .store = b.store_as()},
                         s.dprobs, s.lse + first_row, s.delta + first_row, s.probs, s.dscores);

  const Product keys_by_dim{.m = cols,
                            .n = dim,
                            .k = rows,
                            .operands = b.operands(),
                            .result = DType::f32,
                            .lda = cols,
                            .ldb = dim,
                            .ldc = dim,
                            .a_transposed = true,
                            .accumulate = true};
  multiply(keys_by_dim, s.probs, dout, bytes_of(s.dv + first_key));
  multiply(keys_by_dim, s.dscores, q, bytes_of(s.dk + first_key));
  multiply({.m = rows,
            .n = dim,
            .k = cols,
            .operands = b.operands(),
            .result = DType::f32,
            .lda = cols,
            .ldb = dim,
            .ldc = dim,
            .accumulate = true},
           s.dscores, k, bytes_of(s.dq + first_row * dim));
}

void add_key_block(const BackwardTask& task, const HeadGroup& g, std::int64_t j,
                   const BackwardScratch& s) {
  const AttentionBlocks& b = task.blocks;
  const Range all_keys = b.key_block(j);
  const std::int64_t dim = b.head_dim();
  b.gather_keys(task.k, g, all_keys, s.k);
  b.gather_keys(task.v, g, all_keys, s.v);
  const std::int64_t numel = AttentionBlocks::padded_keys(all_keys.count) * dim;
  std::fill_n(s.dk, numel, 0.0f);
  std::fill_n(s.dv, numel, 0.0f);
  const Range query_blocks = b.query_blocks_of(g.sequence, all_keys);
  for (std::int64_t i = query_blocks.begin; i < query_blocks.end(); ++i) {
    const Range keys = b.key_block(j, g.sequence, b.query_block(i));
    if (keys.count == 0) continue;
    add_block(task, g, i, keys, s);
    if (task.poll) task.poll();
  }
  const AttentionGradients& to = task.gradients;
  for (std::int64_t i = 0; i < all_keys.count; ++i) {
    const std::int64_t key = all_keys.begin + i;
    write_gradient_row(s.dk + i * dim, b.shape().scale, dim, to.dkv_merge, to.dk.dtype,
                       b.key_at(to.dk, g, key));
    write_gradient_row(s.dv + i * dim, 1.0f, dim, to.dkv_merge, to.dv.dtype,
                       b.key_at(to.dv, g, key));
  }
}

void write_query_gradients(const BackwardTask& task, const HeadGroup& g, std::int64_t block,
                           const BackwardScratch& s) {
  const AttentionBlocks& b = task.blocks;
  const Range queries = b.query_block(block);
  const float* dq = s.dq + block * b.max_rows() * b.head_dim();
  for (std::int64_t h = 0; h < b.group(); ++h)
    for (std::int64_t i = queries.begin; i < queries.end(); ++i, dq += b.head_dim())
      write_gradient_row(dq, b.shape().scale, b.head_dim(), task.gradients.dq_merge,
                         task.gradients.dq.dtype, b.query_at(task.gradients.dq, g, h, i));
}

void differentiate(const BackwardTask& task, const HeadGroup& g, const BackwardScratch& s) {
  const AttentionBlocks& b = task.blocks;
  for (std::int64_t i = 0; i < b.num_query_blocks(); ++i) prepare_queries(task, g, i, s);
  for (std::int64_t j = 0; j < b.num_key_blocks(); ++j) add_key_block(task, g, j, s);
  for (std::int64_t i = 0; i < b.num_query_blocks(); ++i) write_query_gradients(task, g, i, s);
}

}  // namespace

std::int64_t attention_backward_bytes(const AttentionBlocks& blocks) {
  Carver carver(nullptr);
  const BackwardScratch counted(carver, blocks);
  return carver.bytes_from_null();
}

void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const KeyRanges& ranges, const TensorView& lse,
                        const TensorView& delta, const TensorView& dout,
                        const AttentionGradients& gradients, const TensorView& workspace,
                        const Poll& poll) {
  const AttentionBlocks blocks(shape, q.dtype, ranges);
  const Poll no_poll;
  const std::int64_t num_tasks = blocks.num_groups();
  const std::int64_t bytes = attention_workspace_bytes_of_thread(shape, q.dtype);
  const int threads = attention_threads(shape, q.dtype, workspace, num_tasks);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int thread = threads > 1 ? omp_get_thread_num() : 0;
    Carver carver(workspace.data + thread * bytes);
    const BackwardScratch scratch(carver, blocks);
    const BackwardTask task{
        blocks, q, k, v, lse, delta, dout, gradients, thread == 0 ? poll : no_poll};
#pragma omp for schedule(dynamic) nowait
    for (std::int64_t t = 0; t < num_tasks; ++t) differentiate(task, blocks.head_group(t), scratch);
    if (task.poll) task.poll();  // the others may have taken all tasks
  }
}

}  // namespace switchyard::kernels::cpu
