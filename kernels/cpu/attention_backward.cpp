// The gradients of attention. One thread computes a kv head of a sequence from its first key block
// to its last, so every sum has one fixed order.
#include "kernels/cpu/attention_backward.hpp"

#include <omp.h>

#include <algorithm>
#include <numbers>

#include "kernels/cpu/attention.hpp"

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
    visible = carver.take<std::int32_t>(b.max_rows());
  }
  std::byte* q;           // [Q, R, D]
  std::byte* dout;        // [Q, R, D]
  float* dq;              // [Q, R, D]
  float* lse;             // [Q, R], to base 2
  float* delta;           // [Q, R], rowsum(dout * out)
  std::byte* k;           // [N, D]
  std::byte* v;           // [N, D]
  float* dk;              // [N, D]
  float* dv;              // [N, D]
  float* scores;          // [R, N]
  float* dprobs;          // [R, N]
  std::byte* probs;       // [R, N]
  std::byte* dscores;     // [R, N]
  std::int32_t* visible;  // [R]
};

struct BackwardTask {
  const AttentionBlocks& blocks;
  const TensorView& q;
  const TensorView& k;
  const TensorView& v;
  const TensorView& out;
  const TensorView& lse;
  const TensorView& dout;
  const AttentionGradients& gradients;
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
      s.lse[row] = *b.lse_at(task.lse, g, h, i) * std::numbers::log2e_v<float>;
      s.delta[row] = dot(b.dtype(), b.query_at(task.dout, g, h, i), b.query_at(task.out, g, h, i),
                         b.head_dim());
    }
}

// dv += P^T dout, dk += dS^T q, dq += dS k for one query block and one key block.
void add_block(const BackwardTask& task, std::int64_t block, const Range& keys,
               const BackwardScratch& s) {
  const AttentionBlocks& b = task.blocks;
  const Range queries = b.query_block(block);
  const std::int64_t rows = b.padded_rows(queries.count);
  const std::int64_t cols = AttentionBlocks::padded_keys(keys.count);
  const std::int64_t dim = b.head_dim();
  const std::int64_t first_row = block * b.max_rows();
  const std::byte* q = s.q + b.operand_bytes(first_row * dim);
  const std::byte* dout = s.dout + b.operand_bytes(first_row * dim);

  const Product rows_by_keys{.m = rows,
                             .n = cols,
                             .k = dim,
                             .operands = b.operands(),
                             .result = DType::f32,
                             .lda = dim,
                             .ldb = dim,
                             .ldc = cols,
                             .b_transposed = true};
  multiply(rows_by_keys, q, s.k, bytes_of(s.scores));
  multiply(rows_by_keys, dout, s.v, bytes_of(s.dprobs));
  b.count_visible(queries, keys, s.visible);
  softmax_block_backward({.scores = s.scores,
                          .rows = rows,
                          .cols = cols,
                          .visible = s.visible,
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
  multiply(keys_by_dim, s.probs, dout, bytes_of(s.dv));
  multiply(keys_by_dim, s.dscores, q, bytes_of(s.dk));
  multiply({.m = rows,
            .n = dim,
            .k = cols,
            .operands = b.operands(),
            .result = DType::f32,
            .lda = cols,
            .ldb = dim,
            .ldc = dim,
            .accumulate = true},
           s.dscores, s.k, bytes_of(s.dq + first_row * dim));
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
  for (std::int64_t i = 0; i < b.num_query_blocks(); ++i) {
    const Range keys = b.key_block(j, b.query_block(i));
    if (keys.count > 0) add_block(task, i, keys, s);
  }
  for (std::int64_t i = 0; i < all_keys.count; ++i) {
    const std::int64_t key = all_keys.begin + i;
    scale_into(s.dk + i * dim, b.shape().scale, b.dtype(), b.key_at(task.gradients.dk, g, key),
               dim);
    scale_into(s.dv + i * dim, 1.0f, b.dtype(), b.key_at(task.gradients.dv, g, key), dim);
  }
}

void write_query_gradients(const BackwardTask& task, const HeadGroup& g, std::int64_t block,
                           const BackwardScratch& s) {
  const AttentionBlocks& b = task.blocks;
  const Range queries = b.query_block(block);
  const float* dq = s.dq + block * b.max_rows() * b.head_dim();
  for (std::int64_t h = 0; h < b.group(); ++h)
    for (std::int64_t i = queries.begin; i < queries.end(); ++i, dq += b.head_dim())
      scale_into(dq, b.shape().scale, b.dtype(), b.query_at(task.gradients.dq, g, h, i),
                 b.head_dim());
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
                        const TensorView& v, const TensorView& out, const TensorView& lse,
                        const TensorView& dout, const AttentionGradients& gradients,
                        const TensorView& workspace) {
  const AttentionBlocks blocks(shape, q.dtype);
  const BackwardTask task{blocks, q, k, v, out, lse, dout, gradients};
  const std::int64_t num_tasks = blocks.num_groups();
  const std::int64_t bytes = attention_workspace_bytes_of_thread(shape, q.dtype);
  const int threads = attention_threads(shape, q.dtype, workspace, num_tasks);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Carver carver(workspace.data + (threads > 1 ? omp_get_thread_num() : 0) * bytes);
    const BackwardScratch scratch(carver, blocks);
#pragma omp for schedule(dynamic)
    for (std::int64_t t = 0; t < num_tasks; ++t) differentiate(task, blocks.head_group(t), scratch);
  }
}

}  // namespace switchyard::kernels::cpu
